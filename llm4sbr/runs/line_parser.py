"""An argparse parser whose error is one line, as those of the other commands."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from llm4sbr.runs.complaint import one_line, report


class LineParser(argparse.ArgumentParser):
    """Parser of a command that needs no Lightning, or that passes words on.

    Args:
        command: Name of the command.
        description: Description for the help.
        examples: Examples for the help.
        usage: Usage line; by default that of argparse.
    """

    def __init__(self, command: str, description: str, examples: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"llm4sbr {command}",
            usage=usage,
            description=description,
            epilog=f"Examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        report(None, one_line(message))
        sys.exit(2)
