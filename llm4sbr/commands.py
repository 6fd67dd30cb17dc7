"""Commands beside the trainer's: thin shells around functions, parsed from their signatures."""

from __future__ import annotations

from llm4sbr.registry import BACKBONES, DATAMODULES, load_plugins


def views(words: list[str]) -> int:
    """Stage 1: infer, localise and store the views of a data module's sessions."""
    from jsonargparse import auto_cli

    from llm4sbr.views.command import views as command

    load_plugins(DATAMODULES)
    summary = auto_cli(command, args=words, as_positional=False, prog="llm4sbr views")
    return 130 if summary.interrupted else 0  # 130: as a shell says of what a signal stopped


def demo(words: list[str]) -> int:
    """The whole road on MovieLens 100K."""
    from jsonargparse import auto_cli

    from llm4sbr.demo import demo as command

    load_plugins(BACKBONES)
    load_plugins(DATAMODULES)
    auto_cli(command, args=words, as_positional=False, prog="llm4sbr demo")
    return 0
