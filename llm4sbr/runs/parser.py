"""An argument parser that suggests the right word for a misspelt option."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from llm4sbr.callbacks import ResumePoint, ViewCache, WarmStart
from llm4sbr.contracts.ranges import OutOfRange
from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins
from llm4sbr.runs.complaint import complaint, one_line, report
from llm4sbr.runs.example_help import ExampleFormatter
from llm4sbr.runs.short_names import written_out
from llm4sbr.training.from_checkpoint import PARTS
from llm4sbr.training.wrapper import LLM4SBRWrapper

_CONFIGS = (".yaml", ".yml", ".json")
_NO_FILE = re.compile(r"((?:File|Path) (?:does not exist|is not a file|is not readable)): '([^']+)'")
_SHORTER = (
    (r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: ", ""),
    (r"- Expected a path but \S+ either not accessible or invalid ", ""),
    (r"- Expected a <class 'NoneType'> ", ""),
    (r" ?Given value type: .*", ""),
    (r'Parser key "([^"]*)":( -)?', r"\1:"),
    (r"(- )?Problem with given class_path '([^']*)':", r"\2:"),
    (r"<class '([^']*)'>", r"\1"),
    (r"Expected a ", "Expected "),
)
_UNKNOWN = (
    r"Option '([^']+)' is not accepted",
    r"does not accept option '([^']+)'",
    r"unrecognized arguments: --([^\s=]+)",
    r"Expected a dot import path string: (\w+)",
    r"No action for key \"([^\"]+)\"",
)


def suggest(message: str, names: Iterable[str] = ()) -> str:
    """Suggest options or classes similar to the unknown words of an error; empty without a suggestion.

    Args:
        message: Error message.
        names: Known options besides those of the trainer commands.
    """
    unknown = {word.split(".")[-1] for pattern in _UNKNOWN for word in re.findall(pattern, message)}
    known = sorted({*names, *_names()})
    found = [
        f"{word!r} is not known; did you mean {' or '.join(repr(name) for name in close)}?"
        for word in sorted(unknown)
        if word not in known and (close := get_close_matches(word, known, 2, 0.7))
    ]
    return "; ".join(found)


def _names() -> Iterable[str]:
    plugins = {**load_plugins(BACKBONES), **load_plugins(DATAMODULES), **load_plugins(HEADS)}
    yield from plugins
    for made in (LLM4SBRWrapper, *PARTS, Trainer, ViewCache, ResumePoint, WarmStart, *plugins.values()):
        for part in made.__mro__:  # a subclass passes ``**kwargs`` to its parent
            if "__init__" in vars(part):
                yield from inspect.signature(vars(part)["__init__"]).parameters


def in_short(message: str) -> str:
    """Shorten the parser's list of all types that it tried to one line.

    >>> in_short("Parser key 'data': Errors: - Expected a <class 'NoneType'> Given value type: dict")
    "Parser key 'data': Errors:"
    """
    text = one_line(message)
    for pattern, short in _SHORTER:
        text = re.sub(pattern, short, text)
    return text.strip(" -")


def _refused_number(ex: BaseException | None) -> OutOfRange | None:
    """Find the number out of its range among the causes of an error."""
    while ex is not None and not isinstance(ex, OutOfRange):
        ex = ex.__cause__ or ex.__context__
    return ex


def _out_of_range(message: str, ex: BaseException | None) -> str | None:
    """Describe a number out of the range of its type; None if there is no such number."""
    cause = _refused_number(ex)  # None with jsonargparse 4.50
    keys = re.findall(r'Parser key "([^"]+)"', message)
    ranges = dict.fromkeys(re.findall(r"Not of type \w+:.*?is not (a .+)", message))  # of a union's members
    if not keys or not (cause or ranges):
        return None
    given = "" if cause is None else f" (got {cause.given!r})"
    must = " or ".join(ranges) or (cause.must if cause else "")
    return one_line(f"{keys[-1]} must be {must}{given}")


def _is_no_number(ex: BaseException | None) -> bool:
    """Whether a word was given where an option needs a number."""
    cause = _refused_number(ex)
    if cause is None:
        return False
    try:
        float(cause.given)
    except (TypeError, ValueError):
        return True
    return False


class SuggestingParser(LightningArgumentParser):
    """Parser whose error messages suggest a known word for an unknown one.

    An error message is one line. The exit status is 2 for a wrong word and 1 for a bad file. The last
    word of an option cannot be abbreviated: a new option could make an abbreviation ambiguous. The group's
    name can be left out (`written_out`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": ExampleFormatter, **kwargs})

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse the words of a command line; groups' names may be left out."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(written_out(words, self._option_string_actions), *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit, or raise it if ``exit_on_error`` is off."""
        if not self.exit_on_error:
            super().error(message, ex)
        problem = self._bad_file(message, ex)
        close = suggest(message, [name.lstrip("-") for name in self._option_string_actions])
        line = problem or ". ".join(part for part in (in_short(message), close) if part)
        report(ex, line)
        sys.exit(1 if problem and not _is_no_number(ex) else 2)

    def _bad_file(self, message: str, ex: Exception | None) -> str | None:
        """Describe what is wrong with a file that an option names; None if the option itself is wrong."""
        named = _NO_FILE.search(message)
        if named:
            return one_line(f"{os.path.relpath(named[2])}: {named[1].lower()}")
        words = [part for word in self.args or () for part in (word, word.partition("=")[2])]
        for word in words:
            if word.endswith(_CONFIGS) and not os.path.exists(word):
                return one_line(f"{word}: there is no such file")
        return _out_of_range(message, ex) or complaint(ex, self.args or ())
