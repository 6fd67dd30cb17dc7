"""Search of the catalogue's items."""

from __future__ import annotations

import threading

from llm4sbr.contracts.catalogue import Catalogue


class TitleSearch:
    """Finds items whose titles contain every word of a text, in any case and order, and the item of an id.

    Args:
        catalogue: Items.

    >>> search = TitleSearch(Catalogue(("a", "b"), ("Rose soap", "Shampoo")))
    >>> search.find("SOAP rose", 5), search.find("b", 5)
    ((1, [0]), (1, [1]))
    """

    def __init__(self, catalogue: Catalogue) -> None:
        import polars as pl

        self._index = catalogue.index
        self._titles = pl.Series(catalogue.titles, dtype=pl.String).str.to_lowercase()
        self._lock = threading.Lock()  # one search at a time: others wait in their queue, not on the cores

    def find(self, query: str, limit: int) -> tuple[int, list[int]]:
        """Number of items that match, and the columns of the first `limit`, in the catalogue's order.

        An item whose id is the text comes first; an empty text matches every item.
        """
        first, *others = query.lower().split() or [query]
        with self._lock:
            matches = self._titles.str.contains(first, literal=True)
            for word in others:
                matches &= self._titles.str.contains(word, literal=True)
            found = matches.arg_true()
        item = self._index.get(query.strip())
        if item is None:
            return len(found), found.head(limit).to_list()
        found = found.filter(found != item - 1)
        return len(found) + 1, [item - 1, *found.head(limit - 1).to_list()]
