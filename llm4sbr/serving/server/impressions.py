"""Impression log: what was shown to whom, in Parquet files, written beside the requests."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_file
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.metrics import Metrics

if TYPE_CHECKING:
    import polars as pl

_PATTERN = "impressions-*.parquet"
_HELD = 4  # files' worth of sessions that may wait for a slow disk


class Impression(NamedTuple):
    """Recommendations of one session, as they were shown."""

    time: datetime
    bundle: str  # fingerprint
    session: list[str]  # clicked items, oldest first
    items: list[str]  # best first
    scores: list[float]
    view: str


class ImpressionLog:
    """Writes impressions to new files of a folder; a full disk costs the log, and no answer.

    Args:
        folder: Folder of the files.
        rows: Sessions in a file.
        seconds: Time after which a file is written, full or not.
        metrics: Where written and lost impressions are counted.
        log: Where failures are logged.

    Raises:
        InputError: If the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, rows: int, seconds: float, metrics: Metrics, log: JsonLog) -> None:
        self.folder, self.rows, self.seconds = Path(folder), rows, seconds
        self.metrics, self.log = metrics, log
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"this folder cannot be made: {error.strerror}", path=self.folder) from error
        if not os.access(self.folder, os.W_OK):
            raise InputError("this folder cannot be written to", path=self.folder)
        self._held: deque[Impression] = deque()
        self._change = threading.Condition()
        self._closed, self._count = False, 0
        self._thread = threading.Thread(target=self._work, name="impressions", daemon=True)
        self._thread.start()

    def add(self, impressions: Iterable[Impression]) -> None:
        """Log impressions, soon; those beyond the memory's bound are dropped and counted."""
        for one in impressions:
            if len(self._held) >= self.rows * _HELD:
                self.metrics.impressions("dropped").inc()
            else:
                self._held.append(one)
        if len(self._held) >= self.rows:
            with self._change:
                self._change.notify()

    def close(self) -> None:
        """Write what is held, and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        closed = False
        while not closed:
            stop = time.monotonic() + self.seconds
            with self._change:
                while not self._closed and len(self._held) < self.rows:
                    if (left := stop - time.monotonic()) <= 0:
                        break
                    self._change.wait(left)
                closed = self._closed
            while self._held:
                part = [self._held.popleft() for _ in range(min(len(self._held), self.rows))]
                self._write(part)
                if not closed and len(self._held) < self.rows:
                    break

    def _write(self, part: list[Impression]) -> None:
        self._count += 1
        name = f"impressions-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{self._count:06d}.parquet"
        try:
            table = _table(part)
            with atomic_file(self.folder / name) as file:
                table.write_parquet(file)
        except Exception as error:  # whatever the disk does, the log alone pays
            self.metrics.impressions("failed").inc(len(part))
            self.log.error("impressions", lost=len(part), problem=str(error))
        else:
            self.metrics.impressions("written").inc(len(part))


def read_impressions(folder: str | Path) -> pl.DataFrame:
    """Read the impressions of a folder, in the order of their time.

    Args:
        folder: Folder of ``llm4sbr serve --impressions``.

    Returns:
        A table of `time` (UTC), `bundle`, `session`, `items`, `scores` and `view`.

    Raises:
        InputError: If the folder has no impressions, or a file cannot be read.
    """
    import polars as pl

    paths = sorted(Path(folder).glob(_PATTERN))
    if not paths:
        raise InputError("there are no impressions here", path=folder, hint="`llm4sbr serve` writes them")
    tables = []
    for path in paths:
        try:
            tables.append(pl.read_parquet(path, glob=False))
        except (Exception, pl.exceptions.PanicException) as error:  # a panic is no `Exception`
            raise InputError("these impressions cannot be read", path=path) from error
    return pl.concat(tables).sort("time", maintain_order=True)


def _table(part: list[Impression]) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(
        part,
        schema={
            "time": pl.Datetime("us", "UTC"),
            "bundle": pl.String,
            "session": pl.List(pl.String),
            "items": pl.List(pl.String),
            "scores": pl.List(pl.Float32),
            "view": pl.String,
        },
        orient="row",
    )
