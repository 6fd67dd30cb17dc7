"""Files of tables, as strings: CSV, TSV and Parquet, optionally gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from llm4sbr.contracts.errors import InputError

from .quotes import mend_quotes
from .rules import Columns

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".item": "\t"}
_PARQUET = (".parquet", ".pq")
_ANY = Columns()


def read_bytes(path: str | Path) -> bytes:
    """Read a file, and unpack it if its name ends in ``.gz``.

    Raises:
        InputError: If the file is missing, empty or damaged gzip.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such file", path=path, hint="Check the data folder and the file name")
    data = path.read_bytes()
    if path.suffix.lower() == ".gz" and data:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            hint = "Fetch the file again"
            raise InputError(f"the gzip file is damaged ({error})", path=path, hint=hint) from error
    if not data.strip():
        raise InputError("the file is empty", path=path)
    return data


def read_table(path: str | Path, columns: Columns = _ANY, *, header: bool = False) -> pl.DataFrame:
    """Read CSV, TSV or Parquet, optionally gzipped, by the suffix. Columns of text tables are strings.

    Args:
        path: Table.
        columns: Its separator, and its column names if it has no header.
        header: Whether the table has a header in any case, as the items table does.

    Raises:
        InputError: If the suffix is unknown, or for the reasons of `read_bytes` and `parse_delimited`.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    if kind in _PARQUET:
        try:
            return pl.read_parquet(io.BytesIO(read_bytes(path)))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"the Parquet file can't be read ({error})", path=path) from error
    separator = columns.separator or _SEPARATORS.get(kind)
    if separator is None:
        known = ", ".join((*_SEPARATORS, *_PARQUET))
        raise InputError(
            "the kind of table is unknown",
            path=path,
            value=kind,
            hint=f"Known: {known}, and .gz; name the separator of other text in `columns.separator`",
        )
    names = None if header else columns.names
    return parse_delimited(read_bytes(path), path, separator=separator, names=names)


def parse_delimited(
    data: bytes, path: str | Path, *, separator: str, names: Sequence[str] | None = None, quoted: bool = True
) -> pl.DataFrame:
    """Parse delimited UTF-8 text. Values are strings, missing values are null, blank lines are skipped.

    Args:
        data: Text as bytes.
        path: File name for error messages.
        separator: Separator, one character.
        names: Names of the first columns, for text without a header.
        quoted: Whether ``"`` quotes a value.

    Raises:
        InputError: If a byte is not UTF-8 or is NUL, or a row has too many values.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    _refuse_bad_bytes(data, path)
    if quoted:
        text, mended = mend_quotes(data.decode("utf-8"), separator)
        if mended:
            warnings.warn(
                f"{path}: {mended} rows have stray quotes; they are read as text.",
                stacklevel=2,
            )
            data = text.encode("utf-8")
    try:
        table = pl.read_csv(
            io.BytesIO(data),
            separator=separator,
            has_header=names is None,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        row, values = _ragged_row(data, separator, header=names is None)
        raise InputError(
            "the row does not have the header's columns", path=path, row=row, value=values
        ) from error
    table = table.rename(dict(zip(table.columns, names or (), strict=False)))
    return table.filter(~pl.all_horizontal(pl.all().is_null()))


def _refuse_bad_bytes(data: bytes, path: str | Path) -> None:
    position = data.find(b"\0")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        position = error.start
    if position >= 0:
        line = data.count(b"\n", 0, position) + 1
        raise InputError(
            f"line {line} holds a byte that is not UTF-8 text",
            path=path,
            value=data[max(0, position - 10) : position + 10],
            hint="Save the file as UTF-8",
        )


def _ragged_row(data: bytes, separator: str, *, header: bool) -> tuple[int | None, str | None]:
    """First row whose number of values differs from the first line's; None if there is no such row."""
    csv.field_size_limit(1 << 30)
    rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=separator)
    width = len(next(rows, []))
    for number, row in enumerate(rows, start=1 if header else 2):
        if row and len(row) != width:
            return number, separator.join(row)
    return None, None
