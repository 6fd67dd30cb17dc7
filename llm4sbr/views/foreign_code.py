"""Checks of encoder and adapter folders: their configuration files may name library classes only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm4sbr.contracts.errors import InputError

# Keys under which sentence-transformers reads a class path, which it imports.
_CLASSES = ("type", "types", "activation_function", "tokenizer_class", "loss_function")
_LIBRARY = re.compile(r"(sentence_transformers|torch\.nn)(\.[a-z_][a-z0-9_]*)*\.[A-Z]\w*")
_HINT = "Only folders whose classes are those of the libraries are loaded; no code of the folder runs"


def check_encoder(folder: Path) -> None:
    """Refuse a sentence-transformers folder that names classes outside the libraries, before it is loaded.

    Raises:
        InputError: If a JSON file of the folder names such a class or is not valid.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith("tokenizer"):  # transformers reads it, and takes its own classes
            continue
        for name in _class_paths(_read(path)):
            if "." in name and _LIBRARY.fullmatch(name) is None:
                raise InputError(
                    "this encoder names a class outside its library", path=path, value=name, hint=_HINT
                )


def check_adapter(folder: Path) -> None:
    """Refuse a PEFT adapter whose configuration makes peft import a module that it names.

    Raises:
        InputError: If ``adapter_config.json`` does so or is not valid.
    """
    path = folder / "adapter_config.json"
    config = _read(path)
    if not isinstance(config, dict):
        raise InputError("this is not the configuration of an adapter", path=path)
    for key in ("megatron_config", "auto_mapping"):
        if config.get(key) is not None:
            raise InputError(
                f"this adapter has a {key}, which names modules to import", path=path, hint=_HINT
            )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"this file cannot be read as JSON: {error}", path=path) from error


def _class_paths(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _class_paths(part, key if key == "types" else name)
    elif isinstance(value, list):
        for part in value:
            yield from _class_paths(part, key)
    elif isinstance(value, str) and key in _CLASSES:
        yield value
