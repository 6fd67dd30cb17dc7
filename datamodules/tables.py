"""Tables of clicks and items: their columns, ids and titles."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from llm4sbr.contracts.errors import InputError

from .rules import Columns
from .table_files import read_table
from .timestamps import TimestampReader, parse_timestamps


def require_columns(table: pl.DataFrame, columns: Sequence[str], path: str | Path) -> None:
    """Check that a table has the columns; the error lists the columns that it has."""
    for column in columns:
        if column not in table.columns:
            hint = f"It has the columns {', '.join(table.columns)}; name yours in `columns`"
            if any(_is_value(name) for name in table.columns):
                hint = (
                    f"The first line, {', '.join(table.columns)}, looks like a row: if the table has no "
                    "header, give the names of the columns in `columns.names`"
                )
            elif len(table.columns) == 1:
                hint = f"The first line is {table.columns[0]!r}: name its separator in `columns.separator`"
            raise InputError("a column is missing", path=path, value=column, hint=hint)


def read_events(
    path: str | Path,
    columns: Columns,
    *,
    key: str,
    split: bool = False,
    table: pl.DataFrame | None = None,
    timestamps: TimestampReader | None = None,
) -> pl.DataFrame:
    """Read clicks.

    Args:
        path: Events table.
        columns: Column names of the table.
        key: Column of the session or user id.
        split: Whether to read the split column.
        table: The table, if it is already loaded; `path` is then only for error messages.
        timestamps: Reader of the timestamps of several tables that belong together; its `check_unit` is left
            to the caller.

    Returns:
        One row per click in file order: ``key``, ``item_id`` (String), ``timestamp`` (Float64) and, with
        `split`, ``split`` (String).

    Raises:
        InputError: If a column, id or timestamp is missing; names the data row (1 = first below the header).
    """
    table = read_table(path, columns) if table is None else table
    wanted = (key, columns.item, columns.time, columns.split if split else None)
    require_columns(table, [name for name in wanted if name is not None], path)
    if table.is_empty():
        raise InputError("the table has no rows", path=path)
    if columns.time is None:
        time = pl.Series(range(table.height), dtype=pl.Float64)
    elif timestamps is not None:
        time = timestamps.read(table[columns.time], path)
    else:
        time = parse_timestamps(table[columns.time], path=path, time_unit=columns.time_unit)
    events = pl.DataFrame(
        {
            "key": _ids(table[key], path),
            "item_id": _ids(table[columns.item], path),
            "timestamp": time,
        }
    )
    if not split:
        return events
    _refuse_nested(table[columns.split], path, "names of splits")
    return events.with_columns(split=table[columns.split].cast(pl.String))


def read_items(path: str | Path, columns: Columns, table: pl.DataFrame | None = None) -> pl.DataFrame:
    """Read item titles.

    Args:
        path: Items table.
        columns: Column names of the table; `columns.text` is joined to the title with ", ".
        table: The table, if it is already loaded; `path` is then only for error messages.

    Returns:
        One row per item in file order: ``item_id``, ``title`` (String, never null).

    Raises:
        InputError: If a column or id is missing, or two rows with the same id differ.
    """
    table = read_table(path, columns, header=True) if table is None else table
    texts = [columns.title, *columns.text]
    require_columns(table, [columns.item, *texts], path)
    ids = _ids(table[columns.item], path)
    known = [column for column in table.columns if _is_scalar(table[column])]
    everything = table.select(pl.struct(pl.col(known).cast(pl.String)).alias("all"))["all"]
    rows = pl.DataFrame({"id": ids, "row": everything}).with_row_index("place", offset=1)
    rows = rows.unique(["id", "row"], keep="first", maintain_order=True)
    differing = rows.filter(pl.col("id").is_duplicated())
    if differing.height:
        raise InputError(
            "duplicate item id in two rows that differ",
            path=path,
            row=differing["place"][0],
            value=differing["id"][0],
            hint="Keep one row per item",
        )
    for text in texts:
        _refuse_nested(table[text], path, "text")
    filled = [pl.col(text).cast(pl.String).replace("", None) for text in texts]
    title = table.select(pl.concat_str(filled, separator=", ", ignore_nulls=True).fill_null(""))
    return pl.DataFrame({"item_id": ids, "title": title.to_series()}).unique(
        "item_id", keep="first", maintain_order=True
    )


def written_alike(item_id: str) -> str:
    """An id without the differences that programs make: spaces, letter case, leading zeros, ``.0``.

    >>> [written_alike(one) for one in (" 012", "12.0", "12", "A-7", "a-7 ", "1.5", "0")]
    ['12', '12', '12', 'a-7', 'a-7', '1.5', '0']
    """
    text = item_id.strip().casefold()
    number = re.fullmatch(r"0*(\d+)(\.0+)?", text)
    return number[1] if number else text


def warn_missing(missing: Sequence[str], listed: pl.Series, *, error: bool, path: str | Path | None) -> None:
    """Report clicked items without a row in the items table, by an error or by one warning.

    Args:
        missing: Ids of the clicked items without a row.
        listed: Ids in the items table; an id that is written in another way there is named.
        error: Whether to raise an error.
        path: Table of clicks.

    Raises:
        InputError: With `error`, if an item is missing.
    """
    if not missing:
        return
    problem = f"{len(missing)} clicked items have no row in the items table: {', '.join(missing[:5])}" + (
        ", ..." if len(missing) > 5 else ""
    )
    there = {written_alike(item): item for item in listed}
    alike = [(item, there[written_alike(item)]) for item in missing if written_alike(item) in there]
    if alike:
        problem += (
            f". {len(alike)} of them would have one if ids were written alike: {alike[0][0]!r} in the events "
            f"is {alike[0][1]!r} in the items"
        )
    if error:
        raise InputError(
            problem, path=path, value=missing[0], hint="Add them, or set missing_titles to empty"
        )
    warnings.warn(f"{problem}; their titles are left empty", UserWarning, stacklevel=2)


def _is_value(name: str) -> bool:
    """Whether a column's name is a number or a time."""
    return re.fullmatch(r"[\d.+:TZ \-]*\d[\d.+:TZ \-]*", name) is not None


def _ids(column: pl.Series, path: str | Path) -> pl.Series:
    if column.dtype.is_float():
        hint = "Store ids as strings or integers (a missing value makes pandas write floats)"
        raise InputError(f"the ids in column {column.name!r} are floats", path=path, hint=hint)
    _refuse_nested(column, path, "ids")
    ids = column.cast(pl.String)
    bad = ids.is_null() | (ids == "")
    if bad.any():
        row = int(bad.arg_true()[0]) + 1
        raise InputError(
            f"the {column.name} is missing", path=path, row=row, hint="Remove the row or fill it in"
        )
    return ids


def _is_scalar(column: pl.Series) -> bool:
    """Whether the values of a column have a text form."""
    return not (column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Duration, pl.Object))


def _refuse_nested(column: pl.Series, path: str | Path, wanted: str) -> None:
    if not _is_scalar(column):
        raise InputError(f"column {column.name!r} holds {column.dtype}, not {wanted}", path=path)
