"""RowsOfItems: modules that say which of their tensors have a row per item."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class RowsOfItems(Protocol):
    """A module with tensors that can be cut to the rows of some items, and then serve these items alone.

    A backbone and a head declare their learned tables by `item_rows`. This is for modules that also convert
    themselves to another catalogue (`CarriesOver`); one that holds numbers of items must not implement it.
    """

    def rows_of_items(self) -> dict[str, int]:
        """Names of the tensors with one row per item, and the number of rows before item 1."""
        ...
