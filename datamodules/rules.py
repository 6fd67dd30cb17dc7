"""The choices that turn a table of clicks into examples: plain, frozen, one group a step.

Each group starts with a required choice, so that setting one field of a group from the command line can't
silently replace the choice that a preset made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm4sbr.contracts.errors import InputError

ExampleMode = Literal["prefixes", "last"]
Protocol = Literal["paper", "temporal"]


@dataclass(frozen=True)
class Columns:
    """What the columns are called in the tables at hand.

    Args:
        session: Session id in the events table, read when sessions are given by a column.
        user: User id in the events table, read otherwise.
        item: Item id, in both tables.
        time: Moment of the click: epoch (see `time_unit`) or ISO 8601. None: the file's order is the order.
        split: Split of the session, read when the split is given by a column.
        title: Title in the items table.
        text: Further text columns of the items table, joined to the title with ", ".
        time_unit: Unit of a numeric `time`.
    """

    session: str = "session_id"
    user: str = "user_id"
    item: str = "item_id"
    time: str | None = "timestamp"
    split: str = "split"
    title: str = "title"
    text: tuple[str, ...] = ()
    time_unit: Literal["s", "ms"] = "s"


@dataclass(frozen=True)
class Sessions:
    """How clicks become sessions.

    Args:
        by: `column`: a session id is given. `gap`: `gap` seconds of inactivity start a new one.
            `window`: fixed windows of `window` seconds, counted from midnight UTC. `user`: a user's whole
            history is one session.
        gap: Seconds, for `gap`.
        window: Seconds, for `window`.
    """

    by: Literal["column", "gap", "window", "user"]
    gap: float = 600.0
    window: float = 300.0

    def __post_init__(self) -> None:
        for name, value in (("gap", self.gap), ("window", self.window)):
            if not value > 0:
                raise InputError(f"sessions.{name} is a number of seconds above 0", value=value)


@dataclass(frozen=True)
class KCore:
    """Drop rare items and short sessions until none is left.

    Args:
        over: Count clicks in `all` sessions, as most papers do, or in `train` only, which leaks nothing;
            items outside training's core are then dropped from the other splits.
        min_item_clicks: Least clicks of an item.
        min_session_length: Least clicks of a session.
    """

    over: Literal["all", "train"]
    min_item_clicks: int = 1
    min_session_length: int = 1

    def __post_init__(self) -> None:
        for name in ("min_item_clicks", "min_session_length"):
            if getattr(self, name) < 1:
                raise InputError(f"kcore.{name} is at least 1", value=getattr(self, name))


@dataclass(frozen=True)
class SplitBy:
    """How sessions are divided; always whole sessions, always before prefixes are expanded.

    Args:
        by: `temporal`: the sessions that end last are test. `ratio`: at random by session id and seed.
            `column`: as the split column says.
        test_ratio: Share of all sessions, for `temporal` and `ratio`.
        val_ratio: Share of the training sessions cut for validation (not used where the column names a
            validation split): the latest for `temporal`, else at random.
        unseen_items: Keep or drop clicks of validation and test on items that training never saw.
        sample: Keep this share of each part's sessions, drawn by session id and seed, to try things on. The
            catalogue and the split are those of the whole; a smaller sample lies in a larger.
    """

    by: Literal["temporal", "ratio", "column"]
    test_ratio: float = 0.1
    val_ratio: float = 0.1
    unseen_items: Literal["keep", "drop"] = "keep"
    sample: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise InputError("split.sample is a share in (0, 1]", value=self.sample)
        for name in ("test_ratio", "val_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"split.{name} is a share in [0, 1)", value=getattr(self, name))
