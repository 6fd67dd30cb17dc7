"""Search of the catalogue's titles."""

from __future__ import annotations

import threading

from llm4sbr.contracts.catalogue import Catalogue


class TitleSearch:
    """Finds items whose titles contain a text, in any case.

    Args:
        catalogue: Items.

    >>> search = TitleSearch(Catalogue(("a", "b"), ("Rose soap", "Shampoo")))
    >>> search.find("SOAP", 5)
    (1, [0])
    """

    def __init__(self, catalogue: Catalogue) -> None:
        import polars as pl

        self._titles = pl.Series(catalogue.titles, dtype=pl.String).str.to_lowercase()
        self._lock = threading.Lock()  # one search at a time: others wait in their queue, not on the cores

    def find(self, query: str, limit: int) -> tuple[int, list[int]]:
        """Number of items that match, and the columns of the first `limit`, in the catalogue's order."""
        with self._lock:
            found = self._titles.str.contains(query.lower(), literal=True).arg_true()
        return len(found), found.head(limit).to_list()
