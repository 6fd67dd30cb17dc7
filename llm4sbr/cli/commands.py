"""The commands: function, summary and examples of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

_DATA = "--data experiments/data/beauty.yaml"
_RUN = f"--config experiments/base.yaml {_DATA}"


class Command(NamedTuple):
    """A command of the command line.

    Args:
        function: ``module:name`` of the function, imported when the command runs.
        summary: Summary for the help, in one line.
        examples: One to three examples, without the leading ``llm4sbr COMMAND``.
        arguments: Kind of the parser: `options`, `positional` and `list` use jsonargparse's `auto_cli`, and
            `list` collects the words before the first option in a list; with `lightning` the function creates
            a LightningCLI; with `own` it parses the words itself, and Lightning is not loaded.
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
        "continue a run of `fit` that was killed or stopped",
        ("runs/llm4sbr/version_0",),
        "positional",
    ),
    "rerun": Command(
        "llm4sbr.runs.rerun:rerun",
        "repeat a run of `fit` and compare every number",
        ("runs/llm4sbr/version_0", "runs/llm4sbr/version_0 --max_epochs 1"),
        "positional",
    ),
    "update": Command(
        "llm4sbr.runs.update:update",
        "train a finished run on with new events and new items, as a new run",
        (
            "runs/llm4sbr/version_0 --data.data_dir data/today",
            f"runs/llm4sbr/version_0 {_DATA} --epochs 5 --out runs/llm4sbr/today",
        ),
        "lightning",
    ),
    "export": Command(
        "llm4sbr.runs.export:export",
        "make one folder of a run that recommends without Lightning, an LLM or a pickle",
        (
            "runs/llm4sbr/version_0 --out bundle",
            "runs/llm4sbr/version_0 --out bundle --ckpt_path runs/llm4sbr/version_0/checkpoints/last.ckpt",
        ),
        "positional",
    ),
    "add-items": Command(
        "llm4sbr.cli.add_items:add_items",
        "add items without clicks to a bundle; they start from their titles",
        (
            "bundle new-items.csv --out bundle-today",
            "bundle new-items.csv --out bundle-today --columns.item sku --columns.title name",
        ),
        "positional",
    ),
    "recommend": Command(
        "llm4sbr.cli.recommend:recommend",
        "recommend items for a session, from a bundle of `export`",
        ("bundle --session B001 B002", "bundle --session B001 B002 --k 5 --seen false --json"),
        "own",
    ),
    "explain": Command(
        "llm4sbr.cli.explain:explain",
        "explain the place of an item for a session: what each click, view and head does to it",
        ("bundle --session B001 B002 --item B003", "bundle --session B001 --item B003 --picture why.png"),
        "own",
    ),
    "serve": Command(
        "llm4sbr.cli.serve:serve",
        "serve a bundle of `export` over HTTP",
        (
            "bundle --port 8000",
            "bundle --impressions impressions --watch_s 5",
            "bundle --ask asked --ask_share 0.05",
        ),
        "own",
    ),
    "convert": Command(
        "llm4sbr.cli.convert:convert",
        "write the model of a bundle as a graph for ONNX Runtime or torch.export",
        ("bundle --out graph", "bundle --out graph --to torch"),
        "positional",
    ),
    "draw": Command(
        "llm4sbr.cli.draw:draw",
        "draw figures of finished runs",
        ("runs/llm4sbr/version_0", "runs/llm4sbr/version_0 runs/llm4sbr/version_1 --format svg"),
        "list",
    ),
    "views infer": Command(
        "llm4sbr.cli.views:infer",
        "infer each session's intents with an LLM, or from titles alone, and store them",
        (
            f"{_DATA} --out views/beauty --limit 2000",
            f"{_DATA} --out views/beauty --source titles",
            f"{_DATA} --out views/beauty --dry_run true --price_in 0.05 --price_out 0.20",
        ),
    ),
    "views report": Command(
        "llm4sbr.report.view_quality.command:views_report",
        "measure the quality of a store's views before any training",
        (f"{_DATA} --store views/beauty --html report.html",),
    ),
    "views merge": Command(
        "llm4sbr.cli.views:merge",
        "merge the answers of other stores into one",
        ("--out views/all --stores '[views/monday, views/tuesday]'",),
    ),
    "views answer": Command(
        "llm4sbr.cli.answer:answer",
        "answer the uncertain sessions of a server with an LLM; the server then knows their views",
        (
            "asked --bundle bundle --model Qwen/Qwen3-0.6B",
            "asked --bundle bundle --once true --server.base_url http://gpu1:8000/v1 --model Qwen/Qwen3-8B",
        ),
        "positional",
    ),
    "tune-llm": Command(
        "llm4sbr.cli.tune:tune",
        "fit a LoRA adapter of a small LLM to the training sessions, for `views infer`",
        (f"{_DATA} --out adapters/beauty --trainer.max_epochs 1",),
        "lightning",
    ),
    "demo": Command(
        "llm4sbr.demo.command:demo",
        "compare a bare and a wrapped SR-GNN on real data with a real LLM, and write a page",
        ("--out demo",),
    ),
}


def run(name: str, words: Sequence[str]) -> int:
    """Run a command and return its exit status.

    Args:
        name: Key of `COMMANDS`.
        words: Options and arguments of the command.
    """
    command = COMMANDS[name]
    if command.arguments == "own":
        status: int = _function(command)(words, *_about(name, command))
        return status
    # Imported here: `llm4sbr --help` needs none of it.
    from llm4sbr.runs.bootstrap import bootstrap
    from llm4sbr.runs.class_paths import renamed_word
    from llm4sbr.runs.trust import TRUST, check_words, trusting

    bootstrap()
    with trusting(TRUST in words):
        check_words(words)
        return _called(name, command, [renamed_word(word) for word in words if word != TRUST])


def _called(name: str, command: Command, words: list[str]) -> int:
    from llm4sbr.runs.example_help import EXAMPLES
    from llm4sbr.runs.parser import SuggestingParser

    called, (description, examples) = _function(command), _about(name, command)
    about: dict[str, Any] = {"description": description, "epilog": EXAMPLES + examples}
    if command.arguments == "lightning":
        called([name, *words], about)
        return 0
    from jsonargparse import auto_cli

    if command.arguments == "list":  # jsonargparse expects a list in one word
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


def _function(command: Command) -> Callable[..., Any]:
    module, _, function = command.function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _about(name: str, command: Command) -> tuple[str, str]:
    """Description and examples of a command, for its help."""
    examples = "".join(f"  llm4sbr {name} {example}\n" for example in command.examples)
    return f"{command.summary[0].upper()}{command.summary[1:]}.", examples


def _status(result: object) -> int:
    """Return 130 after SIGINT, as a shell does; 1 for failed answers or a rerun that differs; else 0."""
    if getattr(result, "interrupted", False):
        return 130
    return int(result is False or bool(getattr(result, "failures", None)))
