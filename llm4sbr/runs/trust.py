"""Trust in configurations: those of strangers build known classes only, and import nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

import yaml

from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.runs.class_paths import known_paths

TRUST = "--trust"  # word of every command: configurations may build any class
_HINT = f"If you trust the file, add {TRUST}: its classes can run any code"
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_OWN = "own-configurations"
# Options that hold plain text. The parser imports no text there, and file names look like class paths.
_PLAIN = re.compile(
    r"(data_dir|cache_dir|save_dir|default_root_dir|dirpath|filename|events|items|predict_events|name|version|"
    r"train|test|store|output|monitor|columns|offset|ckpt_path|project|notes|group|tags|prefix|url|spec)"
)
_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Accept any class in the configurations that are read inside the block.

    Args:
        trust: False leaves everything as it is outside the block.
    """
    before = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(before)


def check_configuration(config: object, path: str | Path) -> None:
    """Refuse a configuration that names anything but known classes, before anything is imported.

    A configuration that `fit` of the same user wrote on this machine is trusted: its classes are those that
    the user named then.

    Args:
        config: Content of the file.
        path: Its file, for messages and for files that it names.

    Raises:
        InputError: If it names another class, or a callable.
    """
    if not _trusted.get() and not _is_own(Path(path)):
        _check(config, Path(path), "", set())


def check_words(words: Sequence[str]) -> None:
    """Check every configuration file that a command line names; see `check_configuration`.

    The words themselves are the user's own and may name any class.
    """
    if _trusted.get():
        return
    option = ""
    for word in words:
        if word.startswith("--"):
            option, _, name = word.partition("=")
        else:
            name = word
        if name and not _is_plain(option):
            found = _loaded(Path(name))
            if found is not None:
                check_configuration(found, name)


def remember(path: Path) -> None:
    """Trust a configuration that a run of this user has written, if it names classes that are not known."""
    config = _loaded(path)
    try:
        _check(config, path, "", set())
    except InputError:
        try:
            write_text(_mark(path), "")
        except (InputError, OSError):
            return  # without a cache the user passes --trust


def _is_own(path: Path) -> bool:
    try:
        mark = _mark(path).lstat()
    except (OSError, ValueError):
        return False
    return mark.st_uid == os.geteuid() if hasattr(os, "geteuid") else True


def _mark(path: Path) -> Path:
    return cache_root() / _OWN / hashlib.sha256(path.read_bytes()).hexdigest()


def _loaded(path: Path) -> object:
    """Content of a YAML file that is a mapping or a list; None for anything else, which no parser builds."""
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except (OSError, ValueError):
        return None
    try:
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (RecursionError, ValueError, yaml.YAMLError):
        try:  # JSON may be indented by tabs, which YAML refuses and the parser does not
            found = json.loads(text)
        except (RecursionError, ValueError):
            return None
    return found if isinstance(found, dict | list) else None


def _check(value: object, path: Path, option: str, seen: set[int]) -> None:
    if isinstance(value, dict | list):
        if id(value) in seen:  # an alias of YAML may hold itself
            return
        seen.add(id(value))
    if isinstance(value, list):
        for part in value:
            _check(part, path, option, seen)
    elif isinstance(value, dict):
        for key, part in value.items():
            whole = f"{option}.{key}".strip(".")
            if whole.rpartition(".")[2] == "class_path":
                _check_class(part, path, option)
            else:
                _check(part, path, option if key in ("init_args", "dict_kwargs") else whole, seen)
    elif isinstance(value, str) and not _is_plain(option):
        if value in known_paths():
            return
        if _DOTTED.fullmatch(value) and _importable(value.partition(".")[0]):
            _check_class(value, path, option)
        for file in (path.parent / value, Path(value)):
            other = _loaded(file)
            if other is not None:
                _check(other, file, option, seen)


def _check_class(name: object, path: Path, option: str) -> None:
    if not isinstance(name, str) or name not in known_paths():
        raise InputError(
            f"{option or 'the file'} names a class or callable that is not known, so it is not imported",
            path=path,
            value=name,
            hint=_HINT,
        )


def _is_plain(option: str) -> bool:
    return _PLAIN.fullmatch(option.rpartition(".")[2].strip("-+")) is not None


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return True
