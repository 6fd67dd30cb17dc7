"""What ``llm4sbr recommend`` and ``explain`` share: words for a bundle and a session, and safe text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from llm4sbr.contracts.text import printable
from llm4sbr.runs.complaint import one_line
from llm4sbr.runs.line_parser import LineParser


class BundleParser(LineParser):
    """Parser of a command that reads a bundle and a session.

    Args:
        command: Name of the command.
        description: Description for the help.
        examples: Examples for the help.
    """

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(command, description, examples)
        self.add_argument("bundle", type=Path, help="folder of `llm4sbr export`")
        self.add_argument(
            "--session", nargs="+", required=True, metavar="ID", help="clicked items, oldest first"
        )
        self.add_argument("--device", default="cpu", help="device of the model (default: cpu)")
        self.add_argument("--json", action="store_true", help="print one JSON object")


def safe(text: str) -> str:
    """One line, in which characters that act on a terminal are escaped."""
    return one_line(printable(text))


def safe_text(text: str) -> Text:
    """The same for rich, which reads no markup in it."""
    return Text(safe(text))


def ignored_line(ignored: Sequence[str]) -> str:
    """The line about ids that the catalogue lacks."""
    return f"Ignored, because the catalogue lacks them: {', '.join(ignored)}."
