"""The view store: answers, localised views and title embeddings on disk, looked up by content.

A store is a folder with one SQLite database, ``views.sqlite``, and ``titles-<fingerprint>.safetensors``
files. The key of a row is the fingerprint of its `AnswerSpec` or `ViewSpec` and `Catalogue.session_key`,
which covers ids and titles of the clicked items, never a row number. Every row has a checksum over all its
fields. Every write is one transaction that is on disk when the method returns.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.finite import require_finite
from llm4sbr.views.engines import Answer
from llm4sbr.views.store.database import StoreError, WriterLock, checksum, named_errors, open_writer
from llm4sbr.views.store.reading import Intent, LocalisedRows, RunRecord, StoreReader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store.title_table import write_table

__all__ = ["AnswerRow", "Intent", "LocalisedRows", "RunRecord", "StoreError", "ViewStore"]


_ADD_SPEC = "INSERT OR IGNORE INTO specs (fingerprint, kind, json, created, checksum) VALUES (?, ?, ?, ?, ?)"


class AnswerRow(NamedTuple):
    """An answer with its key in the store."""

    spec: AnswerSpec
    key: bytes  # session key
    answer: Answer
    prompt: bytes = b""  # hash of the prompt, with which an equal prompt reuses the answer


class ViewStore(StoreReader):
    """Read and write access to a folder of answers and views; many readers, one writer.

    The first write takes the writer's lock and keeps it until `close`. Use the store as a context manager.

    Args:
        path: Folder of the store; the first write creates it.
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
        """Close the database and release the lock. Closing twice is allowed, and a later call reopens it."""
        super().close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def lock(self, wait: float = 0.0) -> None:
        """Take the writer's lock now rather than at the first write.

        Args:
            wait: Seconds to wait for another writer.

        Raises:
            StoreError: Another process is writing, or the folder cannot be created.
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
        for stray in self.path.glob(".tmp-*"):  # left by a killed writer; readers never open these
            stray.unlink(missing_ok=True)

    @property
    def connection(self) -> sqlite3.Connection:
        """Open database with the writer's lock, for `merge_store`."""
        self.lock()
        assert self._connection is not None
        return self._connection

    def add_spec(self, spec: AnswerSpec | ViewSpec) -> None:
        """Write the specification of the rows under ``spec.fingerprint``; a repeated call has no effect."""
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
            text = answer.text.encode("utf-8", "replace").decode()  # UTF-8 cannot encode lone surrogates
            numbers = (answer.prompt_tokens, answer.computed_tokens, answer.answer_tokens)
            choices = json.dumps(answer.choices) if answer.choices else ""
            fields = (text, *numbers, int(answer.finished), choices, prompt)
            table.append((self._spec_id(spec), key, *fields, checksum(spec.fingerprint, key, *fields)))
        self._write(
            ("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", table),
            ("DELETE FROM failures WHERE spec = ? AND session_key = ?", [row[:2] for row in table]),
        )

    def add_failures(self, rows: Iterable[tuple[AnswerSpec, bytes, str]]) -> None:
        """Write the sessions without an answer and the reasons; a later answer removes the entry."""
        table = [
            (self._spec_id(spec), key, reason, checksum(spec.fingerprint, key, reason))
            for spec, key, reason in rows
        ]
        self._write(("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", table))

    def add_run(self, spec: ViewSpec, run: RunRecord) -> None:
        """Write the record of a run."""
        row = (self._spec_id(spec), *run, checksum(spec.fingerprint, *run))
        self._write(("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [row]))

    def add_localised(self, spec: ViewSpec, keys: Sequence[bytes], rows: LocalisedRows) -> None:
        """Write the localised views of a batch of sessions in one transaction.

        Raises:
            InputError: A view is not finite.
        """
        spec_id, table = self._spec_id(spec), []
        values = rows.weights.astype("<f2") if rows.vectors is None else rows.vectors.astype("<f4")
        ids = np.where(rows.mask[..., None], rows.ids, 0).astype("<i4")  # a masked view reads back as masked
        require_finite(torch.from_numpy(values), "the views", path=self.path)
        for place, key in enumerate(keys):
            raw = (ids[place].tobytes(), values[place].tobytes())
            table.append((spec_id, key, *raw, checksum(spec.fingerprint, key, *raw)))
        self._write(("INSERT OR REPLACE INTO localised VALUES (?, ?, ?, ?, ?)", table))

    def add_titles(self, spec: ViewSpec, titles: Tensor, mask: Tensor) -> None:
        """Write the table of title embeddings that a spec's views refer to.

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
        """Execute each statement for its rows, all in one transaction."""
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
