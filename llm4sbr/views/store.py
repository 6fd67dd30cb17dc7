"""The view store: answers, localised views and title embeddings on disk, found by content.

A store is a folder with one SQLite database, ``views.sqlite``, and ``titles-<fingerprint>.safetensors``
beside it. A row is found by the fingerprint of its `AnswerSpec` or `ViewSpec` and by
`Catalogue.session_key`: ids and titles of the clicked items, never a row number. Every row carries a
checksum over all its fields. Every write is one transaction that is on disk when the method returns.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from llm4sbr.views.database import StoreError, WriterLock, checksum, named_errors, open_writer
from llm4sbr.views.engines import Answer
from llm4sbr.views.reading import Intent, LocalisedRows, StoreReader
from llm4sbr.views.spec import AnswerSpec, ViewSpec
from llm4sbr.views.title_table import write_table

__all__ = ["Intent", "LocalisedRows", "StoreError", "ViewStore"]


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

    def lock(self) -> None:
        """Take the writer's lock now rather than at the first write.

        Raises:
            StoreError: Another process is writing, or the folder cannot be made.
        """
        if self._lock is not None:
            return
        with named_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(self.path / "writer.lock")
        try:
            self.close()
            self._connection = open_writer(self.database)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        for stray in self.path.glob(".tmp-*"):  # what a killed writer left; no reader ever looks at these
            stray.unlink(missing_ok=True)

    def add_spec(self, spec: AnswerSpec | ViewSpec) -> None:
        """Write down what made the rows filed under ``spec.fingerprint``; a second time changes nothing."""
        kind, text, now = ("answer" if isinstance(spec, AnswerSpec) else "view"), spec.to_json(), time.time()
        row = (spec.fingerprint, kind, text, now, checksum(spec.fingerprint, kind, text, now))
        self._write(
            "INSERT OR IGNORE INTO specs (fingerprint, kind, json, created, checksum) VALUES (?, ?, ?, ?, ?)",
            [row],
        )

    def add_answers(self, rows: Iterable[tuple[AnswerSpec, bytes, Answer]]) -> None:
        """Write a batch of answers, each with its spec and session key, in one transaction.

        Raises:
            StoreError: The disk is full, or another process is writing; the batch is then not in the store.
        """
        table = []
        for spec, key, answer in rows:
            text = answer.text.encode("utf-8", "replace").decode()  # half an emoji has no place in UTF-8
            numbers = (answer.prompt_tokens, answer.answer_tokens, int(answer.finished))
            table.append(
                (self._spec_id(spec), key, text, *numbers, checksum(spec.fingerprint, key, text, *numbers))
            )
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", table)

    def add_localised(self, spec: ViewSpec, keys: Sequence[bytes], rows: LocalisedRows) -> None:
        """Write the localised views of a batch of sessions in one transaction."""
        spec_id, table = self._spec_id(spec), []
        values = rows.weights.astype("<f2") if rows.vectors is None else rows.vectors.astype("<f4")
        ids = np.where(rows.mask[..., None], rows.ids, 0).astype("<i4")  # a masked view reads back as masked
        for place, key in enumerate(keys):
            raw = (ids[place].tobytes(), values[place].tobytes())
            table.append((spec_id, key, *raw, checksum(spec.fingerprint, key, *raw)))
        self._write("INSERT OR REPLACE INTO localised VALUES (?, ?, ?, ?, ?)", table)

    def add_titles(self, spec: ViewSpec, titles: Tensor, mask: Tensor) -> None:
        """Write the table of title embeddings that a spec's views point into.

        Shapes:
            - titles: ``(V, d_t)`` float32, mask: ``(V,)`` bool
        """
        self.lock()
        sha256 = write_table(self._title_path(spec), titles, mask)
        row = (spec.title_table, sha256, len(titles))
        self._write("INSERT OR REPLACE INTO titles VALUES (?, ?, ?, ?)", [(*row, checksum(*row))])

    def _spec_id(self, spec: AnswerSpec | ViewSpec) -> int:
        if spec.fingerprint not in self._spec_ids:
            self.add_spec(spec)
            rows = self._read("SELECT id FROM specs WHERE fingerprint = ?", spec.fingerprint)
            self._spec_ids[spec.fingerprint] = int(next(rows)[0])
        return self._spec_ids[spec.fingerprint]

    def _write(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        self.lock()
        assert self._connection is not None
        with named_errors(self.database):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(query, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself on a full disk
                    self._connection.execute("ROLLBACK")
                raise
