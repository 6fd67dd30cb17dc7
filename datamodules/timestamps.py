"""Conversion of timestamps to seconds since the epoch."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from llm4sbr.contracts.errors import InputError

from .rules import TimeUnit

_PER_SECOND: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_NAMES: dict[TimeUnit, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}
_ZONED = re.compile(r"(.*\d(?:Z|[+-]\d\d:?\d\d)?)(?:\s+([A-Za-z][\w/+-]*)|\s*\[([A-Za-z][\w/+-]*)\])")
_YEAR_2000, _YEAR_2200 = 946_684_800.0, 7_258_118_400.0
_HINT = "Give every row an epoch number, or every row an ISO 8601 date and time, or set columns.time to null"


def parse_timestamps(
    column: pl.Series, *, path: str | Path | None = None, time_unit: TimeUnit = "s"
) -> pl.Series:
    """Read epoch numbers or ISO 8601 date-times; one form per column.

    Args:
        column: Strings, numbers, dates or date-times. A date-time without an offset is UTC; it may end in the
            name of a zone, as in ``2024-05-01 10:00 UTC`` or ``… Europe/Berlin``.
        path: File name for error messages.
        time_unit: Unit of epoch numbers.

    Returns:
        Float64 seconds since 1970-01-01 UTC.

    Raises:
        InputError: If a value is missing or unreadable, or a number is beyond the year 2200 in its unit; the
            message names its data row.

    Warns:
        UserWarning: If all numbers of a smaller unit than seconds lie early in 1970, but after 2000 in a
            larger unit.

    >>> parse_timestamps(pl.Series(["1970-01-01", "1970-01-01T00:01:00+00:00"])).to_list()
    [0.0, 60.0]
    """
    reader = TimestampReader(time_unit)
    seconds = reader.read(column, path)
    reader.check_unit(path)
    return seconds


class TimestampReader:
    """Reads columns of timestamps that belong together: of one form, and in one unit.

    Args:
        time_unit: Unit of epoch numbers.
    """

    def __init__(self, time_unit: TimeUnit = "s") -> None:
        self.time_unit: TimeUnit = time_unit
        self._numeric: bool | None = None  # the form that the first value decides
        self._low, self._high = float("inf"), float("-inf")  # of all numbers, in their unit

    def read(self, column: pl.Series, path: str | Path | None = None) -> pl.Series:
        """Seconds of the next column; see `parse_timestamps`."""
        kind = column.dtype
        if kind.is_nested() or kind in (pl.Binary, pl.Duration, pl.Time, pl.Object, pl.Boolean):
            raise InputError(f"column {column.name!r} holds {kind}, not timestamps", path=path, hint=_HINT)
        if isinstance(kind, (pl.Datetime, pl.Date)):
            _refuse(column, column.is_null(), "the timestamp is missing", path)
            return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
        _refuse(column, column.is_null() | (column.cast(pl.String) == ""), "the timestamp is missing", path)
        numbers = column.cast(pl.Float64, strict=False)
        numeric = numbers.is_finite().fill_null(False)
        if self._numeric is None:
            self._numeric = len(column) == 0 or bool(numeric[0]) or kind != pl.String
        if self._numeric:
            _refuse(column, ~numeric, "the timestamp is not a number like those above it", path)
            return self._in_seconds(numbers, path)
        return pl.Series(column.name, [_iso(text, row, path) for row, text in enumerate(column, start=1)])

    def check_unit(self, path: str | Path | None = None) -> None:
        """Warn if all numbers that were read would lie early in 1970, but after 2000 in a larger unit."""
        larger = [unit for unit, per in _PER_SECOND.items() if per < _PER_SECOND[self.time_unit]]
        for unit in larger:
            if all(_plausible(number / _PER_SECOND[unit]) for number in (self._low, self._high)):
                warnings.warn(
                    f"{path or 'the table'}: in {_NAMES[self.time_unit]} all timestamps lie in 1970 or soon "
                    f"after; in {_NAMES[unit]} they would lie between 2000 and 2200. Is columns.time_unit "
                    "right?",
                    UserWarning,
                    stacklevel=3,
                )
                break

    def _in_seconds(self, numbers: pl.Series, path: str | Path | None) -> pl.Series:
        """Convert epoch numbers to seconds, and check that their size fits their unit."""
        seconds = numbers / _PER_SECOND[self.time_unit]
        late = seconds > _YEAR_2200
        if late.any():
            row = int(late.arg_true()[0])
            year = 1970 + int(seconds[row] / 31_556_952)
            fitting = [other for other in _PER_SECOND if _plausible(numbers[row] / _PER_SECOND[other])]
            hint = f"Set columns.time_unit to {fitting[0]} ({_NAMES[fitting[0]]})" if fitting else _HINT
            raise InputError(
                f"in {_NAMES[self.time_unit]} this timestamp lies in the year {year:,}",
                path=path,
                row=row + 1,
                value=numbers[row],
                hint=hint,
            )
        if len(numbers):
            self._low = min(self._low, float(numbers.min()))  # type: ignore[arg-type]
            self._high = max(self._high, float(numbers.max()))  # type: ignore[arg-type]
        return seconds


def _plausible(seconds: float) -> bool:
    return _YEAR_2000 <= seconds <= _YEAR_2200


def _iso(text: str, row: int, path: str | Path | None) -> float:
    try:
        moment = _moment(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError, KeyError):  # a KeyError for an unknown zone
        raise InputError("the timestamp can't be read", path=path, row=row, value=text, hint=_HINT) from None


def _moment(text: str) -> datetime:
    """Read a date-time; an offset outweighs the name of a zone behind it."""
    named = _ZONED.fullmatch(text)
    if named is None:
        return datetime.fromisoformat(text)
    moment = datetime.fromisoformat(named[1])
    if moment.tzinfo is not None:
        return moment
    zone = named[2] or named[3]
    return moment.replace(tzinfo=UTC if zone.upper() in ("UTC", "GMT") else ZoneInfo(zone))


def _refuse(column: pl.Series, bad: pl.Series, problem: str, path: str | Path | None) -> None:
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(problem, path=path, row=row + 1, value=column[row], hint=_HINT)
