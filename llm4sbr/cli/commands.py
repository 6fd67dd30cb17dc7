"""Commands beside the trainer's: thin shells around functions, parsed from their signatures."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llm4sbr.runs.bootstrap import bootstrap

VIEWS_USAGE = """usage: llm4sbr views infer | report | merge [options]

  infer    let an LLM infer each session's intents (or take titles alone) and store them
  report   tell how good a store's intents are, before anything is trained
  merge    take the answers of other stores into one

`llm4sbr views COMMAND --help` lists every option.
"""


def views(words: list[str]) -> int:
    """Stage 1: infer views, report on them, merge stores."""
    from jsonargparse import auto_cli

    command = words[0] if words else ""
    if command not in ("infer", "report", "merge"):
        wanted = command in ("-h", "--help")
        print(VIEWS_USAGE, end="", file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    bootstrap()
    function: Callable[..., object]
    if command == "report":
        from llm4sbr.report.view_quality.command import views_report as function
    else:
        from llm4sbr.cli import views as commands

        function = getattr(commands, command)
    result = auto_cli(function, args=words[1:], as_positional=False, prog=f"llm4sbr views {command}")
    if getattr(result, "interrupted", False):
        return 130  # as a shell says of what a signal stopped
    return 1 if getattr(result, "failures", None) else 0


def tune_llm(words: list[str]) -> int:
    """Fit a LoRA adapter of a small LLM to the training sessions."""
    from llm4sbr.cli.tune import tune

    tune(words)
    return 0


def demo(words: list[str]) -> int:
    """The whole road on MovieLens 100K."""
    from jsonargparse import auto_cli

    from llm4sbr.demo.command import demo as command

    bootstrap()
    auto_cli(command, args=words, as_positional=False, prog="llm4sbr demo")
    return 0


def resume(words: list[str]) -> int:
    """Go on with a run of ``fit``."""
    from jsonargparse import auto_cli

    from llm4sbr.runs.resume import resume as command

    auto_cli(command, args=words, as_positional=True, prog="llm4sbr resume")
    return 0


def draw(words: list[str]) -> int:
    """Draw finished runs."""
    from jsonargparse import auto_cli

    from llm4sbr.cli.draw import draw as command

    # Folders come before the options, as many as one likes; jsonargparse wants a list in one word.
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    runs = [f"--runs+={word}" for word in words[:first]]
    auto_cli(command, args=runs + words[first:], as_positional=False, prog="llm4sbr draw")
    return 0


def rerun(words: list[str]) -> int:
    """Make a run again and compare."""
    from jsonargparse import auto_cli

    from llm4sbr.runs.rerun import rerun as command

    return int(not auto_cli(command, args=words, as_positional=True, prog="llm4sbr rerun"))
