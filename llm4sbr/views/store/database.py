"""The store's SQLite file: schema, connections, checksums, the writer's lock, and error messages."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from llm4sbr.contracts.errors import InputError

APPLICATION_ID = 0x4C345342  # "L4SB": marks a SQLite file as a view store
SCHEMA_VERSION = 2
_NO_SPACE = {errno.EFBIG, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error
_BEYOND = 1 << 30  # position of the byte that Windows locks, beyond what is written
DAMAGED = "The file is damaged: restore it from a copy, or move it away and run `llm4sbr views infer` again"
_SCHEMA = """
CREATE TABLE specs (
    id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL,
    created REAL NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE answers (
    spec INTEGER NOT NULL REFERENCES specs(id), session_key BLOB NOT NULL, text TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, computed_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL,
    finished INTEGER NOT NULL, choices TEXT NOT NULL, prompt BLOB NOT NULL,
    checksum BLOB NOT NULL, PRIMARY KEY (spec, session_key)) WITHOUT ROWID;
CREATE INDEX answers_by_prompt ON answers (prompt);
CREATE TABLE failures (
    spec INTEGER NOT NULL REFERENCES specs(id), session_key BLOB NOT NULL, reason TEXT NOT NULL,
    checksum BLOB NOT NULL, PRIMARY KEY (spec, session_key)) WITHOUT ROWID;
CREATE TABLE runs (
    spec INTEGER NOT NULL REFERENCES specs(id), started REAL NOT NULL, rank INTEGER NOT NULL,
    seconds REAL NOT NULL, prompts INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    computed_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL, machine TEXT NOT NULL,
    checksum BLOB NOT NULL, PRIMARY KEY (spec, started, rank)) WITHOUT ROWID;
CREATE TABLE localised (
    spec INTEGER NOT NULL REFERENCES specs(id), session_key BLOB NOT NULL, ids BLOB NOT NULL,
    weights BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (spec, session_key)) WITHOUT ROWID;
CREATE TABLE titles (
    fingerprint TEXT PRIMARY KEY, sha256 TEXT NOT NULL, num_items INTEGER NOT NULL, checksum BLOB NOT NULL);
"""


class StoreError(InputError):
    """The view store is missing, damaged, foreign, in use or out of space; none of its data is used."""


def checksum(*fields: object) -> bytes:
    """Hash all fields of a row to 8 bytes, each with its type and length, so that swapped fields differ."""
    state = hashlib.blake2b(digest_size=8)
    for value in fields:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        state.update(b"%c%d:" % (b"b" if isinstance(value, bytes) else b"t", len(raw)))
        state.update(raw)
    return state.digest()


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and the file system to a `StoreError` with a hint for the user."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError) as error:
        text = str(error)
        failed = "disk I/O" in text
        if "full" in text or getattr(error, "errno", None) in _NO_SPACE or (failed and _is_full(path)):
            hint = "Free some space and run the same command again; rows reported as written are kept"
        elif failed:
            hint = "The disk cannot be read or written; check it, then run the same command again"
        elif "locked" in text or "busy" in text:
            hint = "Another process holds the store; wait until it ends, or end it"
        elif isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
            hint = "Check that the folder exists and is writable"
        else:
            hint = DAMAGED
        raise StoreError(f"the view store failed: {text}", path=path, hint=hint) from error


def _is_full(path: Path) -> bool:
    """Check for a full disk, which SQLite reports as an I/O error when it creates its shared-memory file."""
    with suppress(OSError):
        return shutil.disk_usage(path.parent).free < 1 << 20
    return False


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a finished or growing store for reading; checks its structure once.

    Raises:
        StoreError: The store does not exist, is not a view store, or its structure is damaged.
    """
    if not path.is_file():
        raise StoreError(
            "there is no view store here", path=path.parent, hint="Create one with `llm4sbr views infer`"
        )
    location = f"file:{quote(str(path.absolute()))}?mode=ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
        location += "&immutable=1"  # read-only folder: SQLite cannot create its shared-memory file
    with named_errors(path):
        connection = sqlite3.connect(location, uri=True, timeout=60, isolation_level=None)
        _check(connection, path)
    return connection


def copy_database(path: Path, target: Path) -> None:
    """Copy a consistent snapshot of a store's database; other processes may write to it meanwhile.

    Raises:
        StoreError: The store does not exist, or the copy cannot be written.
    """
    with closing(open_reader(path)) as source, named_errors(target), closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def open_writer(path: Path) -> sqlite3.Connection:
    """Open or create a store for writing; every commit is on disk when it returns."""
    with named_errors(path):
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        connection.execute("PRAGMA busy_timeout = 60000")
        empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if empty and connection.execute("PRAGMA application_id").fetchone()[0] == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            # One transaction, so a kill in between leaves an empty file, not a partial schema.
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
                f"{_SCHEMA} COMMIT;"
            )
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Reject foreign and damaged files: a broken B-tree could hide rows without an error."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError("this is not a view store of llm4sbr", path=path, hint="Choose another folder")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(f"the store has version {version}, this llm4sbr reads {SCHEMA_VERSION}", path=path)
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    for *fields, stored in connection.execute("SELECT fingerprint, kind, json, created, checksum FROM specs"):
        if checksum(*fields) != stored:
            raise sqlite3.DatabaseError(f"spec {fields[0]} fails its checksum")
    for table, kind in (
        ("answers", "answer"),
        ("failures", "answer"),
        ("localised", "view"),
        ("runs", "view"),
    ):
        # A bit flip in a row's spec number would hide the row from its spec.
        query = f"SELECT count(*) FROM {table} WHERE spec NOT IN (SELECT id FROM specs WHERE kind = ?)"
        if connection.execute(query, (kind,)).fetchone()[0]:
            raise sqlite3.DatabaseError(f"rows of {table!r} belong to no known spec")


class WriterLock:
    """An exclusive lock on a store; the operating system releases it when the process ends or is killed.

    Args:
        path: Path of the lock file.
        wait: Seconds to wait for the holder.

    Raises:
        StoreError: Another process is writing to the store.
    """

    def __init__(self, path: Path, wait: float = 0.0) -> None:
        with named_errors(path):
            self._file = _open_lock(path)
        try:
            deadline = time.monotonic() + wait
            while True:
                try:
                    _lock_now(self._file)
                    break
                except OSError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.1)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise StoreError(
                f"another process is writing to this store ({holder})",
                path=path.parent,
                hint="Wait until it ends, end it, or choose another folder",
            ) from error
        with named_errors(path):
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            self._file.flush()

    def release(self) -> None:
        """Release the lock."""
        self._file.close()


def _lock_now(file: IO[str]) -> None:
    """Lock a file until it is closed.

    Raises:
        OSError: Another process holds the lock.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file.fileno(), _BEYOND, os.SEEK_SET)  # a locked byte cannot be read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open_lock(path: Path) -> IO[str]:
    """Open a lock file, which is created or regular: its content is replaced, so no link is followed."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreError("this lock is not a regular file, so it is not written", path=path, hint="Remove it")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8", errors="replace")
