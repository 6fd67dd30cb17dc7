"""The view store: answers, localised views and title embeddings on disk, found by content.

A store is a folder with one SQLite database, ``views.sqlite``, and ``titles-<fingerprint>.safetensors``
beside it. A row is found by the fingerprint of its `AnswerSpec` or `ViewSpec` and by
`Catalogue.session_key`: ids and titles of the clicked items, never a row number. Every row carries a
checksum over all its fields. Every write is one transaction that is on disk when the method returns.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from llm4sbr.views.engines import Answer
from llm4sbr.views.store.database import StoreError, WriterLock, checksum, named_errors, open_writer
from llm4sbr.views.store.reading import Intent, LocalisedRows, RunRecord, StoreReader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store.title_table import write_table

__all__ = ["AnswerRow", "Intent", "LocalisedRows", "RunRecord", "StoreError", "ViewStore"]


_ADD_SPEC = "INSERT OR IGNORE INTO specs (fingerprint, kind, json, created, checksum) VALUES (?, ?, ?, ?, ?)"


class AnswerRow(NamedTuple):
    """An answer and where it is filed."""

    spec: AnswerSpec
    key: bytes  # of the session
    answer: Answer
    prompt: bytes = b""  # hash of the prompt, by which an equal prompt finds the answer


class ViewStore(StoreReader):
    """A folder of answers and views; many readers, one writer.

    The first write takes the writer's lock and keeps it until `close`. Use it as a context manager.

    Args:
        path: The folder; made on the first write.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._lock: WriterLock | None = None
        self._spec_ids: dict[str, int] = {}

    def __enter__(self) -> ViewStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. Closing twice is fine, and a later call opens the store again."""
        super().close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def lock(self, wait: float = 0.0) -> None:
        """Take the writer's lock now rather than at the first write.

        Args:
            wait: Seconds to wait for another writer.

        Raises:
            StoreError: Another process is writing, or the folder cannot be made.
        """
        if self._lock is not None:
            return
        with named_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(self.path / "writer.lock", wait)
        try:
            self.close()
            self._connection = open_writer(self.database)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        for stray in self.path.glob(".tmp-*"):  # what a killed writer left; no reader ever looks at these
            stray.unlink(missing_ok=True)

    @property
    def connection(self) -> sqlite3.Connection:
        """The open database, for what `merge_store` does."""
        self.lock()
        assert self._connection is not None
        return self._connection

    def add_spec(self, spec: AnswerSpec | ViewSpec) -> None:
        """Write down what made the rows filed under ``spec.fingerprint``; a second time changes nothing."""
        kind, text, now = ("answer" if isinstance(spec, AnswerSpec) else "view"), spec.to_json(), time.time()
        row = (spec.fingerprint, kind, text, now, checksum(spec.fingerprint, kind, text, now))
        self._write((_ADD_SPEC, [row]))

    def add_answers(self, rows: Iterable[AnswerRow | tuple[AnswerSpec, bytes, Answer]]) -> None:
        """Write a batch of answers, each with its spec and session key, in one transaction.

        Raises:
            StoreError: The disk is full, or another process is writing; the batch is then not in the store.
        """
        table = []
        for spec, key, answer, prompt in (AnswerRow(*row) for row in rows):
            text = answer.text.encode("utf-8", "replace").decode()  # half an emoji has no place in UTF-8
            numbers = (answer.prompt_tokens, answer.computed_tokens, answer.answer_tokens)
            choices = json.dumps(answer.choices) if answer.choices else ""
            fields = (text, *numbers, int(answer.finished), choices, prompt)
            table.append((self._spec_id(spec), key, *fields, checksum(spec.fingerprint, key, *fields)))
        self._write(
            ("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", table),
            ("DELETE FROM failures WHERE spec = ? AND session_key = ?", [row[:2] for row in table]),
        )

    def add_failures(self, rows: Iterable[tuple[AnswerSpec, bytes, str]]) -> None:
        """Write down which sessions got no answer, and why; a later answer takes the entry out."""
        table = [
            (self._spec_id(spec), key, reason, checksum(spec.fingerprint, key, reason))
            for spec, key, reason in rows
        ]
        self._write(("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", table))

    def add_run(self, spec: ViewSpec, run: RunRecord) -> None:
        """Write down what a run took."""
        row = (self._spec_id(spec), *run, checksum(spec.fingerprint, *run))
        self._write(("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [row]))

    def add_localised(self, spec: ViewSpec, keys: Sequence[bytes], rows: LocalisedRows) -> None:
        """Write the localised views of a batch of sessions in one transaction."""
        spec_id, table = self._spec_id(spec), []
        values = rows.weights.astype("<f2") if rows.vectors is None else rows.vectors.astype("<f4")
        ids = np.where(rows.mask[..., None], rows.ids, 0).astype("<i4")  # a masked view reads back as masked
        for place, key in enumerate(keys):
            raw = (ids[place].tobytes(), values[place].tobytes())
            table.append((spec_id, key, *raw, checksum(spec.fingerprint, key, *raw)))
        self._write(("INSERT OR REPLACE INTO localised VALUES (?, ?, ?, ?, ?)", table))

    def add_titles(self, spec: ViewSpec, titles: Tensor, mask: Tensor) -> None:
        """Write the table of title embeddings that a spec's views point into.

        Shapes:
            - titles: ``(V, d_t)`` float32, mask: ``(V,)`` bool
        """
        self.lock()
        sha256 = write_table(self._title_path(spec), titles, mask)
        row = (spec.title_table, sha256, len(titles))
        self._write(("INSERT OR REPLACE INTO titles VALUES (?, ?, ?, ?)", [(*row, checksum(*row))]))

    def _spec_id(self, spec: AnswerSpec | ViewSpec) -> int:
        if spec.fingerprint not in self._spec_ids:
            self.add_spec(spec)
            rows = self._read("SELECT id FROM specs WHERE fingerprint = ?", spec.fingerprint)
            self._spec_ids[spec.fingerprint] = int(next(rows)[0])
        return self._spec_ids[spec.fingerprint]

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """Run statements over their rows, all in one transaction."""
        connection = self.connection
        with named_errors(self.database):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for query, rows in statements:
                    connection.executemany(query, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite rolls back by itself on a full disk
                    connection.execute("ROLLBACK")
                raise
