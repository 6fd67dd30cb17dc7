"""One-line error messages for the terminal: the only place that turns exceptions into them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from llm4sbr.contracts.errors import InputError

DEBUG = "--debug"  # word of every command: errors are shown with their stack
_DEBUG = "LLM4SBR_DEBUG"  # the same for the processes that a command starts
_SHOWN = 2000  # maximum number of characters of a message


@contextmanager
def debugging(words: Sequence[str]) -> Iterator[list[str]]:
    """Take `--debug` out of a command line; inside the block `report` then shows the stack.

    Yields:
        The other words.
    """
    others, before = [word for word in words if word != DEBUG], os.environ.get(_DEBUG)
    if len(others) < len(words):
        os.environ[_DEBUG] = "1"
    try:
        yield others
    finally:
        if before is None:
            os.environ.pop(_DEBUG, None)
        else:
            os.environ[_DEBUG] = before


def is_debugging() -> bool:
    """Whether this command, or the one that started it, has the word `--debug`."""
    return bool(os.environ.get(_DEBUG))


def report(error: BaseException | None, line: str) -> None:
    """Print an error in one line, after its stack if that is wanted."""
    if error is not None and is_debugging():
        traceback.print_exception(error)
    shown = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    print(f"llm4sbr: error: {shown}", file=sys.stderr)


def unexpected(error: BaseException) -> str:
    """Describe an exception that no known kind of bad input explains: type, message and place."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}llm4sbr{os.sep}" in frame.filename]
    places = [f"{os.path.basename(one.filename)}:{one.lineno}" for one in (*ours[-1:], *frames[-1:])]
    where = ", ".join(dict.fromkeys(places))
    said = one_line(str(error))
    return f"{type(error).__name__}{': ' if said else ''}{said} (at {where}; {DEBUG} shows the stack)"


def complaint(error: BaseException | None, words: Sequence[str] = ()) -> str | None:
    """Describe in one line what is wrong with the input, and in which file.

    Args:
        error: Exception; its causes are searched, too, since a parser and a data loader wrap the error of a
            class.
        words: Command line; an error about YAML does not name the file, so the file is searched for here.

    Returns:
        The line, or None if no bad input is the cause: a traceback is more useful then.
    """
    # Lightning's own error, if Lightning runs: `llm4sbr recommend` and `llm4sbr --help` need none.
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    refusals = (InputError, *([lightning.MisconfigurationException] if lightning else []))
    for one in _causes(error):
        if isinstance(one, refusals):
            return one_line(str(one))
        if isinstance(one, yaml.YAMLError):
            return _blamed(words) + one_line(
                f"this is not YAML: {one}".replace(' in "<unicode string>",', "")
            )
        if isinstance(one, UnicodeDecodeError):
            return _blamed(words) + one_line(f"this is not text in UTF-8: {one}")
        if isinstance(one, OSError) and one.strerror is not None:
            named = one.filename2 or one.filename
            where = f"{os.fsdecode(named)}: " if isinstance(named, str | bytes) else ""
            return one_line(f"{where}{one.strerror}")
    return None


def one_line(text: str) -> str:
    """Replace line ends and other control characters, which could rewrite a terminal, by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of errors that caused it, explicit or implicit."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _blamed(words: Sequence[str]) -> str:
    """Return the first file of a command line that is not valid YAML, with a colon; empty if all are."""
    for word in (part for one in words for part in (one, one.partition("=")[2])):
        if os.path.isfile(word):
            try:
                yaml.safe_load(Path(word).read_text("utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                return f"{one_line(word)}: "
    return ""
