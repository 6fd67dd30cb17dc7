"""Conversion of timestamps to seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl

from llm4sbr.contracts.errors import InputError

_HINT = "Give every row an epoch number, or every row an ISO 8601 date and time, or set columns.time to null"


def parse_timestamps(
    column: pl.Series, *, path: str | Path | None = None, time_unit: Literal["s", "ms"] = "s"
) -> pl.Series:
    """Read epoch numbers or ISO 8601 date-times; one form per column.

    Args:
        column: Strings, numbers, dates or date-times. A date-time without an offset is UTC.
        path: File name for error messages.
        time_unit: Unit of epoch numbers.

    Returns:
        Float64 seconds since 1970-01-01 UTC.

    Raises:
        InputError: If a value is missing or unreadable; the message names its data row.

    >>> parse_timestamps(pl.Series(["1970-01-01", "1970-01-01T00:01:00+00:00"])).to_list()
    [0.0, 60.0]
    """
    kind = column.dtype
    if kind.is_nested() or kind in (pl.Binary, pl.Duration, pl.Time, pl.Object, pl.Boolean):
        raise InputError(f"column {column.name!r} holds {kind}, not timestamps", path=path, hint=_HINT)
    if isinstance(column.dtype, (pl.Datetime, pl.Date)):
        _refuse(column, column.is_null(), "the timestamp is missing", path)
        return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    _refuse(column, column.is_null() | (column.cast(pl.String) == ""), "the timestamp is missing", path)
    numbers = column.cast(pl.Float64, strict=False)
    numeric = numbers.is_finite().fill_null(False)
    if len(column) == 0 or numeric[0] or column.dtype != pl.String:
        _refuse(column, ~numeric, "the timestamp is not a number like those above it", path)
        return numbers / 1000 if time_unit == "ms" else numbers
    return pl.Series(column.name, [_iso(text, row, path) for row, text in enumerate(column, start=1)])


def _iso(text: str, row: int, path: str | Path | None) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise InputError("the timestamp can't be read", path=path, row=row, value=text, hint=_HINT) from None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError:  # year 1 or 9999 with an offset
        raise InputError(
            "the timestamp is out of range", path=path, row=row, value=text, hint=_HINT
        ) from None


def _refuse(column: pl.Series, bad: pl.Series, problem: str, path: str | Path | None) -> None:
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(problem, path=path, row=row + 1, value=column[row], hint=_HINT)
