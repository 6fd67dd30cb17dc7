"""The queue between a server and a language model: uncertain sessions in, their localised views out."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from llm4sbr.contracts.errors import InputError

MOST_VIEWS = 100_000  # published views; the oldest go first, and stay in the view store
_TRIES = 3  # of a session whose prompt fails
_APPLICATION_ID, _VERSION = 0x4C344151, 1  # "L4AQ": marks a SQLite file as such a queue
_SCHEMA = """
CREATE TABLE sessions (
    key BLOB PRIMARY KEY, items TEXT NOT NULL, nats REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
CREATE INDEX sessions_by_nats ON sessions (tries, nats DESC);
CREATE TABLE views (
    id INTEGER PRIMARY KEY AUTOINCREMENT, spec TEXT NOT NULL, key BLOB NOT NULL, ids BLOB NOT NULL,
    weights BLOB NOT NULL, checksum BLOB NOT NULL, UNIQUE (spec, key));
"""


class Asked(NamedTuple):
    """An uncertain session."""

    key: bytes  # `Catalogue.session_key`
    items: list[str]  # the shop's ids of the clicks that the model reads, oldest first
    nats: float  # entropy of its scores


class Published(NamedTuple):
    """Localised views of a session."""

    key: bytes
    ids: bytes  # (K, r) int32; empty with r = 0
    weights: bytes  # (K, r) float16; with r = 0 the vectors, (K, d_t) float32


class AskQueue:
    """A queue in a folder: one SQLite file, for one writing server or several and one language model.

    A session leaves the queue in the transaction that publishes its views, so a kill loses no session. Both
    processes run on one machine: SQLite's write-ahead log needs shared memory. An object belongs to the
    thread that uses it first.

    Args:
        folder: Folder of the queue, which is made if it is missing.

    Raises:
        InputError: If the folder or its file cannot be made, read or written, or the file is another one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "asked.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"this folder cannot be made: {error.strerror}", path=folder) from error
        with self._named_errors():
            self._database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            self._prepare()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __len__(self) -> int:
        """Number of sessions that wait."""
        with self._named_errors():
            return int(self._database.execute("SELECT count(*) FROM sessions").fetchone()[0])

    def add(self, sessions: Iterable[Asked], spec: str, limit: int) -> Counter[str]:
        """Add sessions. Beyond the limit the least uncertain ones are dropped.

        Args:
            sessions: Uncertain sessions.
            spec: Fingerprint of the views that they lack.
            limit: Number of sessions that may wait.

        Returns:
            Number of sessions that are ``queued``, are ``waiting`` already, have ``known`` views by now, or
            were dropped because the queue is ``full``.
        """
        counts: Counter[str] = Counter()
        with self._transaction() as database:
            for one in sessions:
                known = "SELECT 1 FROM views WHERE spec = ? AND key = ?"
                if database.execute(known, (spec, one.key)).fetchone():
                    counts["known"] += 1
                    continue
                added = database.execute(
                    "INSERT OR IGNORE INTO sessions (key, items, nats) VALUES (?, ?, ?)",
                    (one.key, json.dumps(one.items), one.nats),
                ).rowcount
                counts["queued" if added else "waiting"] += 1
            over = database.execute("SELECT count(*) FROM sessions").fetchone()[0] - limit
            if over > 0:
                least = "SELECT key FROM sessions ORDER BY nats, key LIMIT ?"
                database.execute(f"DELETE FROM sessions WHERE key IN ({least})", (over,))
                counts["full"] = over
        return counts

    def most_uncertain(self, count: int) -> list[Asked]:
        """The sessions to ask about next, most uncertain first; those whose prompt has failed come last."""
        query = "SELECT key, items, nats FROM sessions ORDER BY tries, nats DESC, key LIMIT ?"
        with self._named_errors():
            rows = self._database.execute(query, (count,)).fetchall()
        return [Asked(key, _items(text), nats) for key, text, nats in rows]

    def publish(self, spec: str, views: Sequence[Published]) -> None:
        """Publish the views of sessions, which leave the queue in the same transaction.

        Args:
            spec: Fingerprint of the views.
            views: Views of sessions.
        """
        rows = [(spec, *one, _checksum(spec, *one)) for one in views]
        with self._transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO views (spec, key, ids, weights, checksum) VALUES (?, ?, ?, ?, ?)", rows
            )
            database.executemany("DELETE FROM sessions WHERE key = ?", [(one.key,) for one in views])
            oldest = "SELECT id FROM views ORDER BY id DESC LIMIT -1 OFFSET ?"
            database.execute(f"DELETE FROM views WHERE id IN ({oldest})", (MOST_VIEWS,))

    def give_up(self, keys: Iterable[bytes], *, at_once: bool = False) -> None:
        """Count a failed try of sessions; they leave the queue after the third one.

        Args:
            keys: Keys of the sessions.
            at_once: Whether they leave now.
        """
        given = [(key,) for key in keys]
        with self._transaction() as database:
            if at_once:
                database.executemany("DELETE FROM sessions WHERE key = ?", given)
            else:
                database.executemany("UPDATE sessions SET tries = tries + 1 WHERE key = ?", given)
                database.execute("DELETE FROM sessions WHERE tries >= ?", (_TRIES,))

    def published(self, spec: str, after: int = 0) -> tuple[int, list[Published]]:
        """Views that were published since the last look.

        Args:
            spec: Fingerprint of the views.
            after: Number that the last look returned; 0 for all views.

        Returns:
            A number for the next look, and the views, without those whose checksum fails.
        """
        query = "SELECT id, key, ids, weights, checksum FROM views WHERE spec = ? AND id > ? ORDER BY id"
        with self._named_errors():
            rows = self._database.execute(query, (spec, after)).fetchall()
        found = [Published(*row[1:4]) for row in rows if _checksum(spec, *row[1:4]) == row[4]]
        return (rows[-1][0] if rows else after), found

    def _prepare(self) -> None:
        """Create the tables of an empty file, and refuse another file."""
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the latest sessions only
        with self._transaction():  # two processes may start at once
            if not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                for statement in filter(str.strip, _SCHEMA.split(";\n")):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
        found = [
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        ]
        if found != [_APPLICATION_ID, _VERSION]:
            raise InputError(
                "this is not a queue of this version", path=self.path, hint="Name another folder"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._named_errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite rolls back by itself on a full disk
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"the queue of sessions failed: {error}", path=self.path) from error


def _items(text: str) -> list[str]:
    """Ids of a session; none where the text is damaged, whose key then fits no session."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else []


def _checksum(*fields: str | bytes) -> bytes:
    state = hashlib.blake2b(digest_size=8)
    for value in fields:
        raw = value.encode() if isinstance(value, str) else value
        state.update(len(raw).to_bytes(8, "big") + raw)
    return state.digest()
