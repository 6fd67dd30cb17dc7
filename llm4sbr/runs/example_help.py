"""Help of a command, with its examples as they are written."""

from __future__ import annotations

from jsonargparse import DefaultHelpFormatter

EXAMPLES = "Examples:\n"  # first line of a text of examples


class ExampleFormatter(DefaultHelpFormatter):
    """Help formatter that keeps the line breaks of the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)
