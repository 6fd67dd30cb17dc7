"""Entry point of every experiment: ``python -m experiments COMMAND``, from the project root."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from jsonargparse import auto_cli

from llm4sbr.contracts.errors import InputError

COMMANDS = {  # name of the function: its module
    "compare": "experiments.study.compare",
    "search": "experiments.study.search",
    "ablate": "experiments.study.ablate",
    "baselines": "experiments.study.baselines",
    "budget": "experiments.study.budget",
    "cost": "experiments.study.cost",
    "rules": "experiments.study.rules",
    "repeats": "experiments.study.repeats",
    "paths": "experiments.study.paths",
    "views": "experiments.study.views",
    "new_items": "experiments.study.new_items",
    "recbole": "experiments.study.recbole",
    "make_log": "experiments.study.click_log",
    "table": "experiments.study.table",
    "groups": "experiments.study.groups",
    "summary": "experiments.study.summary",
    "tables": "experiments.study.tables",
    "publish": "experiments.study.publish",
}
BENCHMARKS = {  # name of the function: its module; `kept` prints the saved results, `guard` compares ratios
    "kept": "experiments.benchmarks.results",
    "guard": "experiments.benchmarks.guard",
    "asking": "experiments.benchmarks.asking",
    "bare_size": "experiments.benchmarks.bare_size",
    "catalogue_ops": "experiments.benchmarks.catalogue_ops",
    "faithfulness": "experiments.benchmarks.faithfulness",
    "floors": "experiments.benchmarks.floors",
    "http_layers": "experiments.benchmarks.http_layers",
    "large_catalogue": "experiments.benchmarks.large_catalogue",
    "load": "experiments.benchmarks.load",
    "prepare": "experiments.benchmarks.prepare",
    "retrieval": "experiments.benchmarks.retrieval",
    "serving": "experiments.benchmarks.serving",
    "stage1": "experiments.benchmarks.stage1",
    "wrapped_step": "experiments.benchmarks.wrapped_step",
}
FLAGS = ("--check", "--over_plain")  # true without a value
Command = Callable[..., Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: Words after ``python -m experiments``; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    words = [f"{word}=true" if word in FLAGS else word for word in words]
    try:
        found = auto_cli(
            commands(words),
            args=words,
            as_positional=False,
            prog="python -m experiments",
            description=__doc__,
        )
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):  # the parser wraps the error
            cause = cause.__cause__
        if cause is None:
            raise
        print(f"experiments: error: {cause}", file=sys.stderr)
        return 1
    return int(found or 0)


def commands(words: list[str]) -> dict[str, Any]:
    """Load the command that the words name, or else all commands, whose import takes seconds."""
    first, second = [*words, "", ""][:2]
    if first == "benchmarks":
        return {"benchmarks": load(BENCHMARKS, second)}
    if first in COMMANDS:
        return load(COMMANDS, first)
    return {**load(COMMANDS), "benchmarks": load(BENCHMARKS)}


def load(modules: dict[str, str], name: str = "") -> dict[str, Command]:
    """Load one function, or those of all modules, by name."""
    chosen = {name: modules[name]} if name in modules else modules
    return {one: getattr(import_module(module), one) for one, module in chosen.items()}


if __name__ == "__main__":
    sys.exit(main())
