"""Every command: its function, its line in the help and its examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

_DATA = "--data experiments/data/beauty.yaml"
_RUN = f"--config experiments/base.yaml {_DATA}"


class Command(NamedTuple):
    """One command of the dictionary.

    Args:
        function: ``module:name``, imported when the command is chosen.
        summary: One line for the help.
        examples: What comes after ``llm4sbr COMMAND`` in one or two examples.
        arguments: How words become arguments: `options` and `positional` by jsonargparse's `auto_cli`, `list`
            too, with the words before the first option as a list; `lightning` by a LightningCLI, which the
            function makes.
    """

    function: str
    summary: str
    examples: tuple[str, ...]
    arguments: str = "options"


COMMANDS = {
    "fit": Command(
        "llm4sbr.runs.trainer_cli:run",
        "train a backbone, bare or wrapped, and keep the best epoch by validation",
        (
            f"{_RUN} --model.backbone SRGNN",
            f"{_RUN} --model llm4sbr.SBRModule --model.backbone SASRec --data.bucket 50",
        ),
        "lightning",
    ),
    "validate": Command(
        "llm4sbr.runs.trainer_cli:run",
        "evaluate a checkpoint on the validation split",
        (f"{_RUN} --model.backbone SRGNN",),
        "lightning",
    ),
    "test": Command(
        "llm4sbr.runs.trainer_cli:run",
        "evaluate a checkpoint on the test split",
        (
            f"{_RUN} --model.backbone SRGNN",
            "--config runs/llm4sbr/version_0/config.yaml --ckpt_path CHECKPOINT",
        ),
        "lightning",
    ),
    "predict": Command(
        "llm4sbr.runs.trainer_cli:run",
        "write recommendations to Parquet or JSON lines",
        (f"{_RUN} --model.backbone SRGNN --output recommendations.parquet",),
        "lightning",
    ),
    "resume": Command(
        "llm4sbr.runs.resume:resume",
        "go on with a run of `fit` that was killed or stopped",
        ("runs/llm4sbr/version_0",),
        "positional",
    ),
    "rerun": Command(
        "llm4sbr.runs.rerun:rerun",
        "make a run of `fit` again and compare every number",
        ("runs/llm4sbr/version_0", "runs/llm4sbr/version_0 --max_epochs 1"),
        "positional",
    ),
    "draw": Command(
        "llm4sbr.cli.draw:draw",
        "pictures of finished runs",
        ("runs/llm4sbr/version_0", "runs/llm4sbr/version_0 runs/llm4sbr/version_1 --format svg"),
        "list",
    ),
    "views infer": Command(
        "llm4sbr.cli.views:infer",
        "have an LLM infer each session's intents, or take titles alone, and store them",
        (f"{_DATA} --out views/beauty --limit 2000", f"{_DATA} --out views/beauty --source titles"),
    ),
    "views estimate": Command(
        "llm4sbr.cli.views:estimate",
        "estimate the tokens, cost and time of what `views infer` has left to ask, without asking",
        (f"{_DATA} --out views/beauty --prices.prompt 0.05 --prices.answer 0.20",),
    ),
    "views report": Command(
        "llm4sbr.report.view_quality.command:views_report",
        "measure how good a store's intents are, before anything is trained",
        (f"{_DATA} --store views/beauty --html report.html",),
    ),
    "views merge": Command(
        "llm4sbr.cli.views:merge",
        "take the answers of other stores into one",
        ("--out views/all --stores '[views/monday, views/tuesday]'",),
    ),
    "tune-llm": Command(
        "llm4sbr.cli.tune:tune",
        "fit a LoRA adapter of a small LLM to the training sessions, for `views infer`",
        (f"{_DATA} --out adapters/beauty --trainer.max_epochs 1",),
        "lightning",
    ),
    "demo": Command(
        "llm4sbr.demo.command:demo",
        "real data, a real LLM, a bare and a wrapped SR-GNN, and a page that compares them",
        ("--out demo",),
    ),
}


def run(name: str, words: Sequence[str]) -> int:
    """Run a command and return its exit status.

    Args:
        name: Key of `COMMANDS`.
        words: Options and arguments.
    """
    from llm4sbr.runs.bootstrap import bootstrap  # `llm4sbr --help` needs none of this
    from llm4sbr.runs.parser import EXAMPLES, SuggestingParser

    command = COMMANDS[name]
    bootstrap()
    module, _, function = command.function.partition(":")
    called: Callable[..., Any] = getattr(import_module(module), function)
    examples = "".join(f"  llm4sbr {name} {example}\n" for example in command.examples)
    about: dict[str, Any] = {
        "description": f"{command.summary[0].upper()}{command.summary[1:]}.",
        "epilog": EXAMPLES + examples,
    }
    if command.arguments == "lightning":
        called([name, *words], about)
        return 0
    from jsonargparse import auto_cli

    words = list(words)
    if command.arguments == "list":  # jsonargparse wants a list in one word
        first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
        words = [f"--runs+={word}" for word in words[:first]] + words[first:]
    result = auto_cli(
        called,
        args=words,
        as_positional=command.arguments == "positional",
        prog=f"llm4sbr {name}",
        parser_class=SuggestingParser,
        **about,
    )
    return _status(result)


def _status(result: object) -> int:
    """130 for what SIGINT stopped, as a shell says; 1 for failed answers or a rerun with other numbers."""
    if getattr(result, "interrupted", False):
        return 130
    return int(result is False or bool(getattr(result, "failures", None)))
