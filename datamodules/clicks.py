"""ClickTable: clicks as numbers, 16 bytes each, with the ids that the numbers stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from llm4sbr.contracts.mapped import Texts

Numbers = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
_BLOCK = 1 << 22  # rows at a time, where an intermediate result would be larger than the table


class Numbering:
    """Numbers ids in the order of their first appearance, over tables that are read one after another.

    >>> numbering = Numbering()
    >>> [numbering(pl.Series(ids)).tolist() for ids in (["b", "a", "b"], ["c", "a"])]
    [[0, 1, 0], [2, 1]]
    >>> numbering.ids.to_list()
    ['b', 'a', 'c']
    """

    def __init__(self) -> None:
        self._known = pl.DataFrame(schema={"id": pl.String, "number": pl.UInt32})

    def __call__(self, ids: pl.Series) -> Numbers:
        """Numbers of the ids of the next table; ids that are new get the next numbers."""
        column = pl.DataFrame({"id": ids.cast(pl.String)})
        here = column.unique(maintain_order=True)
        known = self._known.join(here, on="id", how="semi", nulls_equal=True)
        new = here.join(known, on="id", how="anti", nulls_equal=True, maintain_order="left")
        new = new.with_row_index("number", offset=self._known.height).select("id", "number")
        self._known = pl.concat([self._known, new], rechunk=False)
        numbers = column.join(
            pl.concat([known, new]), on="id", how="left", nulls_equal=True, maintain_order="left"
        )
        return numbers["number"].to_numpy()

    @property
    def ids(self) -> pl.Series:
        """Every id, in the order of the numbers."""
        return self._known["id"]


@dataclass(frozen=True)
class ClickTable:
    """Clicks of sessions or users; a session, user or item is the number of its id in a series.

    Shapes:
        - key, item: ``(T,)`` numbers of the session or user and of the item
        - time: ``(T,)`` seconds since 1970-01-01 UTC
        - keys: ``(K,)`` ids of sessions or users in the order in which they first appear
        - items: ``(I,)`` ids of items in the order in which they first appear
        - split: ``(T,)`` numbers in `splits`, names of the splits; None without a split column
    """

    key: Numbers
    item: Numbers
    time: npt.NDArray[np.float64]
    keys: pl.Series
    items: pl.Series
    split: Numbers | None = None
    splits: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, events: pl.DataFrame) -> ClickTable:
        """Number the ids of a table with ``key, item_id, timestamp`` and optionally ``split``.

        >>> ClickTable.of(pl.DataFrame({"key": ["b", "a"], "item_id": ["x", "x"], "timestamp": [1, 2]})).item
        array([0, 0], dtype=uint32)
        """
        builder = ClickTableBuilder()
        builder.add(events)
        return builder.table()

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Mask | npt.NDArray[Any]) -> ClickTable:
        """The table of some rows, given by a mask or by their places."""
        split = None if self.split is None else self.split[rows]
        return replace(self, key=self.key[rows], item=self.item[rows], time=self.time[rows], split=split)

    def clicked(self) -> Mask:
        """Whether each item has a click: ``(I,)``."""
        return tally(self.item, len(self.items)) > 0

    def starts(self) -> npt.NDArray[np.int64]:
        """Row of each key's first click, in a table whose rows are grouped by key: ``(S,)``."""
        new = np.ones(len(self), dtype=np.bool_)
        np.not_equal(self.key[1:], self.key[:-1], out=new[1:])
        return np.flatnonzero(new)


class ClickTableBuilder:
    """Collects the parts of a table of clicks as numbers; the ids of one part at a time are in memory."""

    def __init__(self) -> None:
        self._keys, self._items, self._splits = Numbering(), Numbering(), Numbering()
        self._parts: list[tuple[Numbers, Numbers, npt.NDArray[np.float64], Numbers | None]] = []

    def add(self, events: pl.DataFrame) -> None:
        """Add a part with ``key, item_id, timestamp`` and optionally ``split``."""
        split = self._splits(events["split"]) if "split" in events.columns else None
        time = events["timestamp"].cast(pl.Float64).to_numpy()
        self._parts.append((self._keys(events["key"]), self._items(events["item_id"]), time, split))

    def table(self) -> ClickTable:
        """The whole table."""
        key, item, time, split = zip(*self._parts, strict=True)
        self._parts = []
        known = [part for part in split if part is not None]
        return ClickTable(
            np.concatenate(key),
            np.concatenate(item),
            np.concatenate(time),
            self._keys.ids,
            self._items.ids,
            np.concatenate(known) if known else None,
            tuple(self._splits.ids.to_list()),
        )


def blocks(length: int, size: int = _BLOCK) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows.

    >>> list(blocks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(at, min(at + size, length)) for at in range(0, length, size))


def tally(numbers: Numbers, count: int, rows: Mask | None = None) -> npt.NDArray[np.int64]:
    """How often each number below `count` occurs, in all rows or in those of a mask: ``(count,)``.

    >>> tally(np.array([1, 1, 2], dtype=np.uint32), 4, np.array([True, False, True])).tolist()
    [0, 1, 1, 0]
    """
    found = np.zeros(count, dtype=np.int64)
    for block in blocks(len(numbers), max(_BLOCK, count)):  # numpy counts in int64, twice the size
        some = numbers[block] if rows is None else numbers[block][rows[block]]
        found += np.bincount(some, minlength=count)
    return found


def places(ids: pl.Series, known: Sequence[str]) -> npt.NDArray[np.int32]:
    """Place of each id in a list of distinct ids, from 1; 0 for an id that is not there.

    >>> places(pl.Series(["b", "c"]), ("a", "b")).tolist()
    [2, 0]
    """
    numbers = pl.DataFrame(
        {"id": known, "number": range(1, len(known) + 1)}, schema={"id": pl.String, "number": pl.Int32}
    )
    found = pl.DataFrame({"id": ids.alias("id")}, schema={"id": pl.String}).join(
        numbers, on="id", how="left", maintain_order="left"
    )
    return found["number"].fill_null(0).to_numpy()


def texts_of(ids: pl.Series) -> Texts:
    """Ids as two arrays, which can be written to files that are mapped later.

    >>> texts_of(pl.Series(["s1", "ü"])) == ("s1", "ü")
    True
    """
    ends = ids.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    content = b"".join((ids[block].str.join("").item() or "").encode() for block in blocks(len(ids)))
    return Texts(ends, np.frombuffer(content, dtype=np.uint8))
