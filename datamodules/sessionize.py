"""From clicks to sessions. Clicks are sorted by time; ties keep the file's order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from .clicks import ClickTable, Mask, blocks
from .rules import Sessions

_DAY = 86_400.0
Times = npt.NDArray[np.float64]


def sessionize(events: ClickTable, rules: Sessions, what: str = "rows") -> ClickTable:
    """Apply the session options `rules`.

    Args:
        events: Clicks in any order; `key` is the session for `column`, otherwise the user.
        rules: Session options.
        what: Name of the rows in a warning.

    Returns:
        The clicks with the session as `key`. The clicks of a session are contiguous, oldest first; sessions
        are in the order in which their keys first appear. Ids of the sessions of a user are ``user#n``, n
        from 1.

    Warns:
        UserWarning: See `handle_copies`.
    """
    clicks = handle_copies(in_order(events), rules, what)
    if rules.by == "gap":
        return by_gap(clicks, rules.gap)
    return by_window(clicks, rules.window) if rules.by == "window" else clicks


def in_order(events: ClickTable) -> ClickTable:
    """Clicks grouped by key and sorted by time; keys in the order in which they first appear.

    >>> rows = {"key": ["b", "a", "b"], "item_id": ["x", "y", "z"], "timestamp": [2.0, 0.0, 1.0]}
    >>> ordered = in_order(ClickTable.of(pl.DataFrame(rows)))
    >>> ordered.items.gather(ordered.item).to_list()
    ['z', 'x', 'y']
    """
    if len(events) == 0:
        return events
    rows = pl.DataFrame({"key": events.key, "time": events.time}).select(
        pl.arg_sort_by("key", "time", maintain_order=True)
    )
    return events.take(rows.to_series().to_numpy())


def handle_copies(clicks: ClickTable, rules: Sessions, what: str = "rows") -> ClickTable:
    """Keep or drop exact copies of a row, as `rules` says: the same key, item and time.

    Args:
        clicks: Clicks grouped by key and sorted by time.
        rules: Session options.
        what: Name of the rows in the warning.

    Returns:
        The rows in their order; of copies that are dropped the first row stays.

    Warns:
        UserWarning: If there are copies; it has their number and share.

    >>> table = pl.DataFrame({"key": ["a", "a"], "item_id": ["x", "x"], "timestamp": [5.0, 5.0]})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     len(handle_copies(ClickTable.of(table), Sessions("column", duplicates="drop")))
    1
    """
    copies = _copies(clicks)
    if not len(copies):
        return clicks
    dropped = rules.duplicates == "drop"
    warnings.warn(
        f"{len(copies):,} of {len(clicks):,} {what} ({len(copies) / len(clicks):.1%}) are exact copies of "
        "another row (same session or user, item and time); "
        + (
            "they were dropped"
            if dropped
            else "each counts as a click. Set sessions.duplicates to drop if the log wrote clicks twice: "
            "copies make the next click easy to predict"
        ),
        UserWarning,
        stacklevel=2,
    )
    if not dropped:
        return clicks
    kept = np.ones(len(clicks), dtype=np.bool_)
    kept[copies] = False
    return clicks.take(kept)


def by_gap(clicks: ClickTable, seconds: float) -> ClickTable:
    """Split a user's clicks at gaps of `seconds` or more."""
    return _numbered(clicks, lambda time: np.diff(time) >= seconds)


def by_window(clicks: ClickTable, seconds: float) -> ClickTable:
    """Split a user's clicks into windows of `seconds` from midnight UTC."""

    def starts_new(time: Times) -> Mask:
        day = np.floor(time / _DAY)
        window = np.floor((time - day * _DAY) / seconds)
        new: Mask = (np.diff(day) != 0) | (np.diff(window) != 0)
        return new

    return _numbered(clicks, starts_new)


def _copies(clicks: ClickTable) -> npt.NDArray[np.int64]:
    """Rows that repeat an earlier row of the same key and time; only rows with equal times are compared."""
    tie = (clicks.key[1:] == clicks.key[:-1]) & (clicks.time[1:] == clicks.time[:-1])
    tied = np.zeros(len(clicks), dtype=np.bool_)
    tied[1:] |= tie
    tied[:-1] |= tie
    rows = np.flatnonzero(tied)
    if not len(rows):
        return rows
    group = np.cumsum(~np.concatenate(([False], tie))[rows])  # rows of one key and time
    item = clicks.item[rows]
    order = np.lexsort((item, group))  # stable: the first row of copies comes first
    same = (np.diff(group[order]) == 0) & (np.diff(item[order].astype(np.int64)) == 0)
    return np.sort(rows[order[1:][same]])


def _numbered(clicks: ClickTable, starts_new: Callable[[Times], Mask]) -> ClickTable:
    """Number sessions; `starts_new` maps ``n + 1`` times to whether each of the last ``n`` opens one."""
    new = np.ones(len(clicks), dtype=np.bool_)
    for block in blocks(len(clicks) - 1):
        here = slice(block.start + 1, block.stop + 1)
        both = slice(block.start, block.stop + 1)
        new[here] = (np.diff(clicks.key[both].astype(np.int64)) != 0) | starts_new(clicks.time[both])
    first = np.flatnonzero(new)  # (S,)
    user = clicks.key[first]  # (S,)
    number = np.arange(len(user)) - np.searchsorted(user, user) + 1  # users are in ascending order
    ids = pl.DataFrame({"user": clicks.keys.gather(user), "number": number}).select(
        pl.format("{}#{}", "user", "number")
    )
    session = np.cumsum(new, dtype=np.uint32)
    session -= np.uint32(1)
    return replace(clicks, key=session, keys=ids.to_series())
