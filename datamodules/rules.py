"""Options that turn a table of clicks into examples: one frozen dataclass per step of the pipeline.

Each group starts with a required choice, so that setting one field of a group from the command line can't
silently replace the choice that a preset made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, PositiveShare, Rate, check_fields

ExampleMode = Literal["prefixes", "last"]
Protocol = Literal["paper", "temporal"]
TimeUnit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True)
class Columns:
    """Column names of the tables.

    Args:
        session: Session id in the events table, read if sessions are given by a column.
        user: User id in the events table, read otherwise.
        item: Item id in both tables.
        time: Time of the click: epoch (see `time_unit`) or ISO 8601. With None, rows are in click order.
        split: Split of the session, read if the split is given by a column.
        title: Title in the items table.
        text: Further text columns of the items table, joined to the title with ", ".
        time_unit: Unit of a numeric `time`: seconds, milli-, micro- or nanoseconds. Numbers that lie beyond
            the year 2200 in this unit are an error.
        separator: Separator of a text table, one character; by default that of the file's suffix.
        names: Names of the events table's columns in order, if the table has no header.
    """

    session: str = "session_id"
    user: str = "user_id"
    item: str = "item_id"
    time: str | None = "timestamp"
    split: str = "split"
    title: str = "title"
    text: tuple[str, ...] = ()
    time_unit: TimeUnit = "s"
    separator: str | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and len(self.separator.encode()) != 1:
            raise InputError("columns.separator is one ASCII character", value=self.separator)


@dataclass(frozen=True)
class Sessions:
    """Options that turn clicks into sessions.

    Args:
        by: `column`: a column holds the session id. `gap`: `gap` seconds of inactivity start a new session.
            `window`: fixed windows of `window` seconds, counted from midnight UTC. `user`: a user's whole
            history is one session.
        gap: Inactivity in seconds that starts a new session, for `gap`.
        window: Length of a window in seconds, for `window`.
        duplicates: Whether to keep or drop exact copies of a row: clicks of the same session or user on the
            same item at the same time. A warning has their number either way.
    """

    by: Literal["column", "gap", "window", "user"]
    gap: PositiveFloat = 600.0
    window: PositiveFloat = 300.0
    duplicates: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class KCore:
    """Options of the filter that drops rare items and short sessions until none is left.

    Args:
        over: Sessions in which clicks are counted: `all`, as in most papers, or `train` only, which avoids
            leakage; items outside the core of training are then dropped from the other splits.
        min_item_clicks: Minimum number of clicks of an item.
        min_session_length: Minimum number of clicks of a session.
        unclicked_items: Rows of the items table without any click: left out of the catalogue, or kept, so
            that a model that reads titles can recommend new items.
    """

    over: Literal["all", "train"]
    min_item_clicks: PositiveInt = 1
    min_session_length: PositiveInt = 1
    unclicked_items: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SplitBy:
    """Options of the split, which assigns whole sessions before prefixes are expanded.

    Args:
        by: `temporal`: the sessions that end last are the test split. `ratio`: random by session id and seed.
            `column`: the split column decides.
        test_ratio: Share of all sessions in the test split, for `temporal` and `ratio`.
        val_ratio: Share of the training sessions used for validation: the latest for `temporal`, otherwise
            random. It is ignored if the split column names a validation split.
        unseen_items: Whether to keep or drop clicks of validation and test on items that are not in training.
        sample: Share of each part's sessions to keep, chosen by session id and seed, for quick experiments.
            The catalogue and the split are those of the full data; a smaller sample is part of a larger one.
    """

    by: Literal["temporal", "ratio", "column"]
    test_ratio: Rate = 0.1
    val_ratio: Rate = 0.1
    unseen_items: Literal["keep", "drop"] = "keep"
    sample: PositiveShare = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
