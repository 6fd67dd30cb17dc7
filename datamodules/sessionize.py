"""Pure functions from clicks to sessions. Clicks are sorted by time; ties keep the file's order."""

from __future__ import annotations

import warnings

import polars as pl

from .rules import Sessions

_DAY = 86_400.0


def handle_copies(events: pl.DataFrame, rules: Sessions, what: str = "rows") -> pl.DataFrame:
    """Keep or drop exact copies of a row, as `rules` says: the same key, item and time.

    Args:
        events: Table with ``key, item_id, timestamp``.
        rules: Session options.
        what: Name of the rows in the warning.

    Returns:
        The rows in their order; of copies that are dropped the first row stays.

    Warns:
        UserWarning: If there are copies; it has their number and share.

    >>> from warnings import catch_warnings, simplefilter
    >>> table = pl.DataFrame({"key": ["a", "a"], "item_id": ["x", "x"], "timestamp": [5.0, 5.0]})
    >>> with catch_warnings():
    ...     simplefilter("ignore")
    ...     handle_copies(table, Sessions("column", duplicates="drop")).height
    1
    """
    once = events.unique(["key", "item_id", "timestamp"], keep="first", maintain_order=True)
    copies = events.height - once.height
    if not copies:
        return events
    dropped = rules.duplicates == "drop"
    warnings.warn(
        f"{copies:,} of {events.height:,} {what} ({copies / events.height:.1%}) are exact copies of another "
        "row (same session or user, item and time); "
        + (
            "they were dropped"
            if dropped
            else "each counts as a click. Set sessions.duplicates to drop if the log wrote clicks twice: "
            "copies make the next click easy to predict"
        ),
        UserWarning,
        stacklevel=2,
    )
    return once if dropped else events


def sessionize(events: pl.DataFrame, rules: Sessions) -> pl.DataFrame:
    """Apply the session options `rules`; see `by_key`, `by_gap` and `by_window`."""
    if rules.by == "gap":
        return by_gap(events, rules.gap)
    if rules.by == "window":
        return by_window(events, rules.window)
    return by_key(events)


def by_key(events: pl.DataFrame) -> pl.DataFrame:
    """One session per distinct key: a session id, or a user whose whole history is one session.

    Args:
        events: Table with ``key, item_id, timestamp`` and optionally ``split``, in any order.

    Returns:
        The table with ``session_id`` instead of ``key``. The clicks of a session are contiguous, oldest
        first; sessions are in the order in which their keys first appear.

    >>> by_key(pl.DataFrame({"key": ["b", "a", "b"], "timestamp": [2.0, 0.0, 1.0]})).rows()
    [('b', 1.0), ('b', 2.0), ('a', 0.0)]
    """
    return _ordered(events).rename({"key": "session_id"})


def by_gap(events: pl.DataFrame, seconds: float) -> pl.DataFrame:
    """Split a user's clicks at gaps of `seconds` or more. Session ids are ``user#n``, n from 1.

    >>> by_gap(pl.DataFrame({"key": ["u", "u", "u"], "timestamp": [0.0, 599.0, 1199.0]}), 600.0).rows()
    [('u#1', 0.0), ('u#1', 599.0), ('u#2', 1199.0)]
    """
    return _numbered(_ordered(events), pl.col("timestamp").diff() >= seconds)


def by_window(events: pl.DataFrame, seconds: float) -> pl.DataFrame:
    """Split a user's clicks into windows of `seconds` from midnight UTC. Ids are ``user#n``, n from 1.

    >>> by_window(pl.DataFrame({"key": ["u", "u", "u"], "timestamp": [299.0, 300.0, 301.0]}), 300.0).rows()
    [('u#1', 299.0), ('u#2', 300.0), ('u#2', 301.0)]
    """
    day = (pl.col("timestamp") / _DAY).floor()
    window = ((pl.col("timestamp") - day * _DAY) / seconds).floor()
    return _numbered(_ordered(events), (day.diff() != 0) | (window.diff() != 0))


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    rows = events.with_row_index("_row").with_columns(_first=pl.col("_row").min().over("key"))
    return rows.sort("_first", "timestamp", "_row").drop("_row", "_first")


def _numbered(ordered: pl.DataFrame, starts_new: pl.Expr) -> pl.DataFrame:
    number = starts_new.fill_null(False).cast(pl.Int64).cum_sum().over("key") + 1
    session_id = pl.format("{}#{}", pl.col("key"), number)
    return ordered.select(session_id.alias("session_id"), pl.all().exclude("key"))
