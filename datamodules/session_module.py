"""SessionDataModule: clicks and titles from tables; the base class of the presets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl

from llm4sbr.contracts.ranges import NonNegativeInt

from .base import ExampleDataModule
from .pipeline import Prepared, Recipe, build
from .rules import Columns, ExampleMode, KCore, Sessions, SplitBy
from .tables import read_events, read_items


class SessionDataModule(ExampleDataModule):
    """Reads clicks and titles from your own tables and serves batches of session examples.

    A preset overrides `fetch`, `source_files` and `load_tables`, or only the defaults.

    Args:
        data_dir: Folder of `events` and `items`; by default the current folder.
        events: Table of clicks: CSV, TSV or Parquet, optionally gzipped.
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
        return [folder / name for name in (self.events, self.items) if name is not None]

    def new_files(self) -> list[Path]:
        """The table of the sessions to recommend for."""
        return [Path(self.predict_events)] if self.predict_events else []

    def choices(self) -> dict[str, Any]:
        """The recipe and the columns."""
        return {**asdict(self.recipe()), "columns": asdict(self.columns)}

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

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks (``key, item_id, timestamp``, optionally ``split``) and titles (``item_id, title``)."""
        files = self.source_files()
        split = self.recipe().split.by == "column"
        events = read_events(files[0], self.columns, key=self._key, split=split)
        return events, read_items(files[1], self.columns) if len(files) > 1 else None

    def build(self) -> Prepared:
        """Build the examples of every split from the raw files."""
        events, items = self.load_tables()
        new = self.predict_events
        predict = read_events(new, self.columns, key=self._key) if new else None
        return build(events, items, self.recipe(), predict=predict, path=self.source_files()[0])

    @property
    def _key(self) -> str:
        return self.columns.session if self.sessions.by == "column" else self.columns.user
