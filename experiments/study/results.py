"""Results file of a study: rows of fits in Parquet, shared by processes and written atomically."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from filelock import BaseFileLock, FileLock

from experiments.study.rows import Key, Row, Run, frame, key_of, pack, unpack
from llm4sbr.contracts.errors import InputError

SPACE = "search space"  # key in the metadata of the file


class Study:
    """The fits of a study.

    The results are in the file. Working files are under ``runs/NAME`` in the working folder: locks, the
    journal of the search, and a folder for each fit with its checkpoints.

    Args:
        path: Results file; ``.parquet`` may be left out. It need not exist.
        runs: Folder of the working files of studies.
    """

    def __init__(self, path: Path | str, runs: Path | str = "runs") -> None:
        path = Path(path)
        self.path = path if path.suffix == ".parquet" else path.with_name(f"{path.name}.parquet")
        self.name = self.path.stem
        self.work = Path(runs, self.name)

    def exists(self) -> bool:
        """Return whether the results file exists."""
        return self.path.exists()

    def begin(self, space: str) -> None:
        """Save the space of a search; a new file has no fits."""
        with self._lock():
            if self.space() != space:
                rows = pl.read_parquet(self._content()) if self.exists() else frame([])
                self._write(rows, {SPACE: space})

    def space(self) -> str | None:
        """Return the search space of the study as YAML; None without a search."""
        return pl.read_parquet_metadata(self._content()).get(SPACE) if self.exists() else None

    def scores(self) -> dict[Key, float]:
        """Return the saved fits and their validation results."""
        content = self._content() if self.exists() else None
        if content is None or not pl.read_parquet_schema(content):
            return {}
        rows = pl.read_parquet(content, columns=[*Key._fields, "best_validation"])
        return {key_of(row): row["best_validation"] for row in rows.iter_rows(named=True)}

    def kept(self) -> set[Key]:
        """Return the keys of the saved fits."""
        return set(self.scores())

    def runs(self) -> list[Run]:
        """Return all fits, in the order in which they were saved.

        Raises:
            InputError: The results file does not exist.
        """
        if not self.exists():
            raise InputError("there is no such study", path=self.path)
        return [unpack(row) for row in pl.read_parquet(self._content()).iter_rows(named=True)]

    def tested(self) -> list[Run]:
        """Return the tested fits."""
        return [run for run in self.runs() if "test" in run]

    def add(self, run: Run) -> None:
        """Save a fit.

        Raises:
            InputError: The fit is saved already.
        """
        self.extend([run])

    def extend(self, runs: Iterable[Run]) -> None:
        """Save several fits at once.

        Raises:
            InputError: A fit is saved already.
        """
        added = [pack(run) for run in runs]
        with self._lock():
            if twice := self.kept() & {key_of(row) for row in added}:
                raise InputError(
                    "these fits are saved already", path=self.path, value=sorted(map(str, twice))
                )
            kept: list[Row] = []
            if self.exists():
                kept = list(pl.read_parquet(self._content()).iter_rows(named=True))
            space = self.space()
            self._write(frame([*kept, *added]), {} if space is None else {SPACE: space})

    def merge(self, other: Study) -> list[Key]:
        """Take in the fits of another file that are not kept here, and its search space; returns which.

        Raises:
            InputError: The other file does not exist, or both come from different search spaces.
        """
        found, space = other.runs(), other.space()
        if space is not None and self.space() not in (None, space):
            raise InputError("this study is of another search space", path=other.path)
        kept = self.kept()
        new = [run for run in found if key_of(run) not in kept]
        if space is not None:
            self.begin(space)
        if new:
            self.extend(new)
        return [key_of(run) for run in new]

    def claim(self, key: Key) -> BaseFileLock:
        """Return the lock of a fit, to be acquired without waiting; it opens when its process ends."""
        return self.lock(str(key), timeout=0)

    def lock(self, name: str, timeout: float = -1) -> BaseFileLock:
        """Return a lock that all processes of the study share."""
        folder = self.work / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock", timeout=timeout)

    def _content(self) -> io.BytesIO:
        """The whole file in one read: polars opens a path twice, and another process may replace it."""
        return io.BytesIO(self.path.read_bytes())

    def _lock(self) -> BaseFileLock:
        return self.lock("results")

    def _write(self, rows: pl.DataFrame, metadata: dict[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        rows.write_parquet(part, compression="zstd", compression_level=19, metadata=metadata)
        part.replace(self.path)
