"""What a misspelt option was meant to be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from llm4sbr.callbacks import ResumePoint, ViewCache
from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins
from llm4sbr.training.checkpoint import PARTS
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.training.wrapper import LLM4SBRWrapper

_UNKNOWN = (
    r"Option '([^']+)' is not accepted",
    r"does not accept option '([^']+)'",
    r"unrecognized arguments: --([^\s=]+)",
    r"Expected a dot import path string: (\w+)",
    r"No action for key \"([^\"]+)\"",
)


def suggest(message: str) -> str:
    """A line that names the options or classes that an error's unknown words look like; empty without one."""
    unknown = {word.split(".")[-1] for pattern in _UNKNOWN for word in re.findall(pattern, message)}
    known = sorted(set(_names()))
    found = [
        f"{word!r} is not known; did you mean {' or '.join(repr(name) for name in close)}?"
        for word in sorted(unknown)
        if word not in known and (close := get_close_matches(word, known, 2, 0.7))
    ]
    return "\n".join(found)


def _names() -> Iterable[str]:
    plugins = {**load_plugins(BACKBONES), **load_plugins(DATAMODULES), **load_plugins(HEADS)}
    yield from plugins
    models = (LLM4SBRWrapper, SBRModule, *PARTS)
    for made in (*models, Trainer, ViewCache, ResumePoint, *plugins.values()):
        yield from inspect.signature(made).parameters


class SuggestingParser(LightningArgumentParser):
    """Ends a complaint about an unknown word with the known one that it looks like.

    The beginning of an option is no option: what is short for one today may be short for two tomorrow.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Complain and exit."""
        close = suggest(message)
        super().error(f"{message}\n{close}" if close else message, ex)
