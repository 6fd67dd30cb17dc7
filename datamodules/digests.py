"""Digests of files; those of large files are remembered, so that a start does not read gigabytes."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from pathlib import Path

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text

LARGE = 256 * 2**20  # bytes; a smaller file is read at every start, in about 0.3 s


def digest(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def known_digest(file: Path, folder: Path) -> str:
    """Hex digest of a file's content, for a large file as remembered on this machine.

    A remembered digest counts as long as the file's inode, size, modification time and change time are the
    same. Every write to a file sets the change time, which no program can choose. What this does not notice
    is a medium that changes bits by itself.

    Args:
        file: File to read.
        folder: Folder in which digests are remembered; it may be read-only.
    """
    status = file.stat()
    if status.st_size < LARGE:
        return digest(file)
    place = [platform.node(), str(file.resolve())]
    name = hashlib.blake2b(json.dumps(place).encode(), digest_size=16).hexdigest()
    memory = folder / ".digests" / f"{name}.json"
    stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(memory.read_text("utf-8"))
        if known["stamp"] == stamp:
            return str(known["digest"])
    found = digest(file)
    with suppress(InputError, OSError):
        write_text(memory, json.dumps({"stamp": stamp, "digest": found}))
    return found
