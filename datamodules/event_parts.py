"""Events in parts: a folder or glob of Parquet files, read a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from llm4sbr.contracts.errors import InputError

from .clicks import ClickTable, ClickTableBuilder
from .rules import Columns
from .tables import read_events, require_columns
from .timestamps import TimestampReader

SUFFIXES = (".parquet", ".pq")
_ROWS_AT_ONCE = 1 << 22
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def is_parts(path: Path) -> bool:
    """Whether a path names a folder, or is a glob and not the name of a file."""
    return path.is_dir() or (has_magic(str(path)) and not path.exists())


def find_parts(path: Path) -> list[Path]:
    """The Parquet files of a folder, at any depth, or of a glob, in the order of their paths.

    Files and folders whose name starts with ``_`` or ``.``, which engines write beside the data, are left
    out.

    Raises:
        InputError: If there is none.
    """
    root = root_of(path)
    pattern = "**/*" if path.is_dir() else str(path.relative_to(root))
    parts = [
        part
        for part in sorted(root.glob(pattern))
        if part.suffix.lower() in SUFFIXES
        and part.is_file()
        and not any(name.startswith(("_", ".")) for name in part.relative_to(root).parts)
    ]
    if not parts:
        raise InputError(
            "there is no Parquet file", path=path, hint=f"A part ends in {' or '.join(SUFFIXES)}"
        )
    return parts


def root_of(path: Path) -> Path:
    """The folder of the parts: the path itself, or the folders of a glob in front of the first wildcard."""
    return path if path.is_dir() else next(one for one in path.parents if not has_magic(str(one)))


def read_parts(path: Path, columns: Columns, *, key: str, split: bool = False) -> ClickTable:
    """Read clicks from parts, which together are one table.

    A block of rows at a time is checked as `read_events` checks a table and then kept as numbers, 16 bytes a
    click, so of the text only the distinct ids are in memory. A folder ``name=value`` between `path` and a
    part is a column of text.

    Args:
        path: Folder or glob of the parts.
        columns: Column names of the parts.
        key: Column of the session or user id.
        split: Whether to read the split column.

    Raises:
        InputError: If the columns or their types differ between the parts, and for the reasons of
            `read_events`; names the part and the row in it.
    """
    parts, root = find_parts(path), root_of(path)
    wanted = [one for one in (key, columns.item, columns.time, columns.split if split else None) if one]
    _check_schemas(parts, root, wanted)
    builder, timestamps, rows = ClickTableBuilder(), TimestampReader(columns.time_unit), 0
    for part in parts:
        for first, block in _blocks(part, hive_columns(part, root), wanted):
            try:
                events = read_events(part, columns, key=key, split=split, table=block, timestamps=timestamps)
            except InputError as error:
                row = error.row + first if isinstance(error.row, int) else error.row
                raise InputError(
                    error.problem, path=part, row=row, value=error.value, hint=error.hint
                ) from error
            if columns.time is None:  # the order of the clicks of all parts
                events = events.with_columns(pl.col("timestamp") + rows)
            builder.add(events)
            rows += block.height
    if rows == 0:
        raise InputError("the parts have no rows", path=path)
    timestamps.check_unit(path)
    return builder.table()


def hive_columns(part: Path, root: Path) -> dict[str, str | None]:
    """Columns that the folders between `root` and a part give, as in ``day=2026-11-28/part.parquet``.

    >>> hive_columns(Path("log/day=2026-11-28/shop=a%20b/1.parquet"), Path("log"))
    {'day': '2026-11-28', 'shop': 'a b'}
    """
    pairs = (name.split("=", 1) for name in part.relative_to(root).parts[:-1] if "=" in name)
    return {name: None if value == _NO_VALUE else unquote(value) for name, value in pairs}


def _blocks(
    part: Path, given: Mapping[str, str | None], wanted: Sequence[str]
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Blocks of rows of a part, each with the number of rows before it."""
    stored = pl.scan_parquet(part).select(*dict.fromkeys(one for one in wanted if one not in given))
    constant = [pl.lit(given[one], pl.String).alias(one) for one in wanted if one in given]
    first = 0
    while True:
        try:
            block = stored.slice(first, _ROWS_AT_ONCE).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"the Parquet file can't be read ({error})", path=part) from error
        if block.height:
            yield first, block.with_columns(constant)
        first += block.height
        if block.height < _ROWS_AT_ONCE:
            return


def _check_schemas(parts: Sequence[Path], root: Path, wanted: Sequence[str]) -> None:
    """Check that every part has the columns of the first one, with the same types."""
    expected: dict[str, pl.DataType] = {}
    for part in parts:
        try:
            schema: dict[str, pl.DataType] = dict(pl.read_parquet_schema(part))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"the Parquet file can't be read ({error})", path=part) from error
        schema |= {name: pl.String() for name in hive_columns(part, root)}
        if not expected:
            require_columns(pl.DataFrame(schema=schema), wanted, part)
            expected = schema
        for name in sorted(expected.keys() | schema.keys()):
            here, there = (one.get(name, "missing") for one in (schema, expected))
            if here != there:
                raise InputError(
                    f"the column {name!r} is {here}, and {there} in {parts[0].relative_to(root)}",
                    path=part,
                    hint="Every part needs the same columns of the same types",
                )
