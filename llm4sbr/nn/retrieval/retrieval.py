"""How items are found: a part that a recommender is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from llm4sbr.nn.retrieval.scan import Nearest, Own, ScannedItems
from llm4sbr.nn.retrieval.tables import Bfloat16Table, Float32Table, Int8Table

_SMALL = 1 << 14  # items; a product with fewer is not bound by memory


class ItemSearch(Protocol):
    """Item vectors that are searched."""

    memory: int  # bytes beside the item vectors

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        own: Own | None = None,
        allowed: Tensor | None = None,
        log_sum: bool = False,
    ) -> Nearest:
        """Find the best items of each query; see `ScannedItems.search`."""

    def scores(self, query: Tensor) -> Tensor:
        """Scores of all items, ``(B, V)`` float32, as exact as the search computes them."""


class Retrieval(ABC):
    """How the items with the highest scores are found: ``Recommender.load(path, retrieval=Int8Items())``.

    It holds settings alone, so that a server makes a new search for each bundle.

    Attributes:
        approximate: Whether some of the best items may be missed.
    """

    approximate = False

    @abstractmethod
    def over(self, items: Tensor) -> ItemSearch:
        """Make a search over item vectors.

        Shapes:
            - items: ``(V, D)`` float32, finite
        """


class Float32Items(Retrieval):
    """Exact: a product in float32, by blocks. It needs no memory besides the items."""

    def over(self, items: Tensor) -> ScannedItems:
        """Search the items themselves."""
        return ScannedItems(items, Float32Table(items))


class Bfloat16Items(Retrieval):
    """Exact: a product in bfloat16 leaves few candidates, which are scored in float32.

    Half of the items' memory is added. It is the fastest for batches where the processor has matrix
    instructions for bfloat16 (AMX, AVX-512 BF16), and right everywhere. Small catalogues stay in float32.
    """

    def over(self, items: Tensor) -> ScannedItems:
        """Round the items to bfloat16."""
        return ScannedItems(items, (Float32Table if len(items) < _SMALL else Bfloat16Table)(items))


class Int8Items(Retrieval):
    """Exact: a product of 8-bit numbers leaves few candidates, which are scored in float32.

    A quarter to a half of the items' memory is added. It is the fastest for a few sessions at a time.
    Small catalogues stay in float32.
    """

    def over(self, items: Tensor) -> ScannedItems:
        """Round the items to 8 bits, each with its scale."""
        return ScannedItems(items, (Float32Table if len(items) < _SMALL else Int8Table)(items))
