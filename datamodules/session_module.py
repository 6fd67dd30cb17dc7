"""SessionDataModule: clicks and titles from tables; the base class of the presets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl

from llm4sbr.contracts.ranges import NonNegativeInt

from .base import ExampleDataModule
from .clicks import ClickTable
from .event_parts import find_parts, is_parts, read_parts, root_of
from .pipeline import Prepared, Recipe, build
from .rules import Columns, ExampleMode, KCore, Sessions, SplitBy
from .tables import read_events, read_items


class SessionDataModule(ExampleDataModule):
    """Reads clicks and titles from your own tables and serves batches of session examples.

    A preset overrides `fetch`, `source_files` and `load_tables`, or only the defaults.

    Args:
        data_dir: Folder of `events` and `items`; by default the current folder.
        events: Table of clicks: CSV, TSV or Parquet, optionally gzipped; or a folder or glob of Parquet
            files, which are read in blocks, so that the table may be larger than memory (`read_parts`).
        items: Table of titles; null for data without titles.
        columns: Column names of the tables.
        sessions: Options that turn clicks into sessions.
        kcore: Options of the filter for rare items and short sessions.
        split: Options of the split.
        missing_titles: Treatment of clicked items without a row in `items`: an error, or empty titles with
            one warning.
        examples_per_session: Targets of a session: every click after the first, or only the last click.
        eval_examples: The same option for validation and test; by default as for training.
        seed: Seed of random cuts. The shuffle uses Lightning's global seed.
        predict_events: Table of the sessions to recommend for, with the columns of `events`; by default the
            whole test sessions.
        **kwargs: Arguments of `ExampleDataModule`.

    Raises:
        InputError: If a choice is out of range or, at preparation, if the data are invalid.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        events: str = "events.csv",
        items: str | None = "items.csv",
        *,
        columns: Columns = Columns(),  # noqa: B008 (frozen)
        sessions: Sessions = Sessions(by="column"),  # noqa: B008
        kcore: KCore = KCore(over="all"),  # noqa: B008
        split: SplitBy = SplitBy(by="temporal"),  # noqa: B008
        missing_titles: Literal["error", "empty"] = "empty",
        examples_per_session: ExampleMode = "prefixes",
        eval_examples: ExampleMode | None = None,
        seed: NonNegativeInt = 0,
        predict_events: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir, self.events, self.items = data_dir, events, items
        self.predict_events, self.seed = predict_events, seed
        self.columns, self.sessions, self.kcore, self.split = columns, sessions, kcore, split
        self.missing_titles: Literal["error", "empty"] = missing_titles
        self.examples_per_session: ExampleMode = examples_per_session
        self.eval_examples: ExampleMode = eval_examples or examples_per_session

    def source_files(self) -> list[Path]:
        """The raw files, whose content is part of the cache key."""
        folder = Path(self.data_dir or ".")
        return [*_files(folder / self.events), *([folder / self.items] if self.items else [])]

    def new_files(self) -> list[Path]:
        """The tables of the sessions to recommend for."""
        return _files(Path(self.predict_events)) if self.predict_events else []

    def choices(self) -> dict[str, Any]:
        """The recipe, the columns and the places of parts, which hold values of hive columns."""
        parts = {name: _places(path) for name, path in self._tables_in_parts().items()}
        return {**asdict(self.recipe()), "columns": asdict(self.columns), **parts}

    def recipe(self) -> Recipe:
        """Every choice that affects the examples."""
        return Recipe(
            self.sessions,
            self.kcore,
            self.split,
            self.missing_titles,
            self.examples_per_session,
            self.eval_examples,
            self.seed,
        )

    def load_tables(self) -> tuple[pl.DataFrame | ClickTable, pl.DataFrame | None]:
        """Clicks (``key, item_id, timestamp``, optionally ``split``) and titles (``item_id, title``).

        Clicks in parts are numbered while they are read.
        """
        files, parts = self.source_files(), self._tables_in_parts().get("events")
        if parts is not None:
            files = [parts, *(files[-1:] if self.items else ())]
        events = self._read(files[0], split=self.recipe().split.by == "column")
        return events, read_items(files[1], self.columns) if len(files) > 1 else None

    def build(self) -> Prepared:
        """Build the examples of every split from the raw files."""
        events, items = self.load_tables()
        clicks = events if isinstance(events, ClickTable) else ClickTable.of(events)
        del events
        new = self._read(Path(self.predict_events)) if self.predict_events else None
        predict = ClickTable.of(new) if isinstance(new, pl.DataFrame) else new
        parts = self._tables_in_parts().get("events")
        return build(clicks, items, self.recipe(), predict=predict, path=parts or self.source_files()[0])

    def _read(self, path: Path, split: bool = False) -> pl.DataFrame | ClickTable:
        if is_parts(path):
            return read_parts(path, self.columns, key=self._key, split=split)
        return read_events(path, self.columns, key=self._key, split=split)

    def _tables_in_parts(self) -> dict[str, Path]:
        paths = {"events": Path(self.data_dir or ".") / self.events}
        if self.predict_events:
            paths["predict_events"] = Path(self.predict_events)
        return {name: path for name, path in paths.items() if is_parts(path)}

    @property
    def _key(self) -> str:
        return self.columns.session if self.sessions.by == "column" else self.columns.user


def _files(path: Path) -> list[Path]:
    return find_parts(path) if is_parts(path) else [path]


def _places(path: Path) -> list[str]:
    root = root_of(path)
    return [part.relative_to(root).as_posix() for part in find_parts(path)]
