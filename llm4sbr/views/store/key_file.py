"""Session keys in a text file: one content key per line, in hex."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text

_KEY = re.compile(r"[0-9a-f]{32}")


def write_keys(path: str | Path, keys: Iterable[bytes]) -> None:
    """Write session keys, in order; a missing folder is created."""
    # Atomic: a truncated file would read as fewer sessions without an error.
    write_text(path, "".join(f"{key.hex()}\n" for key in keys))


def read_keys(path: str | Path) -> list[bytes]:
    """Read a file of `write_keys`.

    Raises:
        InputError: The file cannot be read, or a line is not a session key.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the file of session keys cannot be read", path=path) from error
    for row, line in enumerate(lines, start=1):
        if not _KEY.fullmatch(line):
            raise InputError(
                "a session key is 32 hex digits",
                path=path,
                row=row,
                value=line,
                hint="Write the file with llm4sbr.views.store.key_file.write_keys",
            )
    return [bytes.fromhex(line) for line in lines]
