"""Yoochoose and Diginetica, the public click logs that most papers of the field use, as their files are."""

from __future__ import annotations

from typing import Any

import polars as pl

from .rules import Columns, KCore, SplitBy
from .session_module import SessionDataModule
from .table_files import read_table
from .tables import read_events, require_columns
from .timestamps import parse_timestamps

_FILTER = KCore(over="all", min_item_clicks=5, min_session_length=2)


class Yoochoose(SessionDataModule):
    """Clicks of the RecSys Challenge 2015: ``yoochoose-clicks.dat``, which has no header.

    Items have no title. Items with fewer than five clicks and sessions of one click are dropped, and the
    sessions that end last are the test split. Papers that name a fraction (1/64, 1/4) keep the latest part of
    training; ``split.sample`` keeps a random one instead.

    Args:
        data_dir: Folder of `events`.
        events: File of the clicks.
        kcore: Options of the filter for rare items and short sessions.
        split: Options of the split.
        **kwargs: Arguments of `SessionDataModule`.
    """

    def __init__(
        self,
        data_dir: str,
        events: str = "yoochoose-clicks.dat",
        *,
        kcore: KCore = _FILTER,
        split: SplitBy = SplitBy(by="temporal"),  # noqa: B008 (frozen)
        **kwargs: Any,
    ) -> None:
        names = ("session_id", "timestamp", "item_id", "category")
        columns = Columns(separator=",", names=names)
        super().__init__(data_dir, events, None, columns=columns, kcore=kcore, split=split, **kwargs)


class Diginetica(SessionDataModule):
    """Item views of the CIKM Cup 2016: ``train-item-views.csv``.

    Its product names are numbers, so items have no title. A click's time is the start of its `eventdate` plus
    `timeframe` milliseconds, as in the field's preprocessing. Filter and split are those of `Yoochoose`.

    Args:
        data_dir: Folder of `events`.
        events: File of the item views.
        kcore: Options of the filter for rare items and short sessions.
        split: Options of the split.
        **kwargs: Arguments of `SessionDataModule`.

    Raises:
        InputError: At preparation, if a column is missing or a time is not a number.
    """

    def __init__(
        self,
        data_dir: str,
        events: str = "train-item-views.csv",
        *,
        kcore: KCore = _FILTER,
        split: SplitBy = SplitBy(by="temporal"),  # noqa: B008 (frozen)
        **kwargs: Any,
    ) -> None:
        columns = Columns(session="sessionId", item="itemId", time="timeframe", time_unit="ms", separator=";")
        super().__init__(data_dir, events, None, columns=columns, kcore=kcore, split=split, **kwargs)

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks with the time of their day added."""
        path = self.source_files()[0]
        table = read_table(path, self.columns)
        require_columns(table, ["eventdate"], path)
        events = read_events(path, self.columns, key=self._key, table=table)
        day = parse_timestamps(table["eventdate"], path=path, time_unit=self.columns.time_unit)
        return events.with_columns(timestamp=pl.col("timestamp") + day), None
