"""CatalogueChange: how the items of a data module relate to those that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import IntArray


@dataclass(frozen=True)
class CatalogueChange:
    """Where each item of a catalogue was in an earlier catalogue, matched by the shop's ids.

    ``V'`` is the number of items before, ``V`` the number now.

    Args:
        source: Number of every item in the earlier catalogue, 1..V'; 0 for a new item.
        num_before: ``V'``.
        retitled: True for an item of both catalogues whose title differs.
        fitting: Whether training follows, so that the parts have read the new training sessions.
        titles: Title embeddings of the present catalogue, if they are known.
        titled: True for items that have a title embedding.

    Shapes:
        - source: ``(V,)`` long; retitled: ``(V,)`` bool; titles: ``(V, d_t)``; titled: ``(V,)`` bool

    >>> before, now = Catalogue(("a", "b"), ("", "")), Catalogue(("b", "c", "a"), ("", "", ""))
    >>> change = CatalogueChange.between(before.id_digests, before.title_digests, now)
    >>> change.source.tolist(), change.number.tolist(), change.num_new
    ([2, 0, 1], [0, 3, 1], 1)
    >>> change.rows(torch.tensor([[0.0], [1.0], [2.0]]), torch.full((4, 1), 9.0), 1).flatten().tolist()
    [0.0, 2.0, 9.0, 1.0]
    """

    source: Tensor
    num_before: int
    retitled: Tensor
    fitting: bool = False
    titles: Tensor | None = None
    titled: Tensor | None = None

    @classmethod
    def between(cls, ids: IntArray, titles: IntArray, now: Catalogue) -> CatalogueChange:
        """Match an earlier catalogue, given by its digests, with the present one.

        Args:
            ids: `Catalogue.id_digests` of the earlier catalogue.
            titles: Its `Catalogue.title_digests`.
            now: Present catalogue.

        Shapes:
            - ids, titles: ``(V',)``
        """
        order = np.argsort(ids, kind="stable")
        place = np.minimum(np.searchsorted(ids[order], now.id_digests), len(ids) - 1)  # (V,)
        found = order[place]  # (V,) index of the item with the nearest digest
        kept = ids[found] == now.id_digests
        retitled = kept & (titles[found] != now.title_digests)
        source = np.where(kept, found + 1, 0)
        return cls(torch.from_numpy(source), len(ids), torch.from_numpy(retitled))

    @classmethod
    def none(cls, num_items: int) -> CatalogueChange:
        """No change: the same items in the same order."""
        return cls(torch.arange(1, num_items + 1), num_items, torch.zeros(num_items, dtype=torch.bool))

    @classmethod
    def grown(cls, num_items: int, more: int) -> CatalogueChange:
        """New items after the earlier ones, which keep their numbers.

        >>> CatalogueChange.grown(2, 1).source.tolist()
        [1, 2, 0]
        """
        source = torch.cat((torch.arange(1, num_items + 1), torch.zeros(more, dtype=torch.long)))
        return cls(source, num_items, torch.zeros(num_items + more, dtype=torch.bool))

    @property
    def num_items(self) -> int:
        """``V``, number of items now."""
        return len(self.source)

    @property
    def num_kept(self) -> int:
        """Number of items in both catalogues."""
        return int((self.source > 0).sum())

    @property
    def num_new(self) -> int:
        """Number of items that only the present catalogue has."""
        return self.num_items - self.num_kept

    @property
    def num_gone(self) -> int:
        """Number of items that only the earlier catalogue has."""
        return self.num_before - self.num_kept

    @property
    def same_items(self) -> bool:
        """Whether both catalogues have the same items in the same order."""
        return torch.equal(self.source, torch.arange(1, self.num_before + 1))

    @cached_property
    def number(self) -> Tensor:
        """Present number of every earlier item, ``(V' + 1,)``; 0 for padding and for an item that is gone."""
        number = torch.zeros(self.num_before + 1, dtype=torch.long)
        kept = self.source > 0
        number[self.source[kept]] = torch.arange(1, self.num_items + 1)[kept]
        return number

    def rows(self, before: Tensor, fresh: Tensor, first: int) -> Tensor:
        """Map a tensor with one row per item to the present catalogue.

        Rows of kept items, and rows before the first and after the last item (padding, a mask token), come
        from the earlier tensor, the rows of new items from `fresh`. The result has the type of `before`.

        Args:
            before: Tensor of the earlier catalogue.
            fresh: Tensor of the present catalogue, whose rows of new items are used.
            first: Number of rows before item 1.

        Shapes:
            - before: ``(first + V' + more, ...)``; fresh and output: ``(first + V + more, ...)``
        """
        result = fresh.detach().to(before.device, before.dtype, copy=True)
        last = first + self.num_items
        result[:first], result[last:] = before[:first], before[first + self.num_before :]
        kept = (self.source > 0).to(before.device)
        result[first:last][kept] = before[first - 1 + self.source.to(before.device)[kept]]
        return result

    def fits(self, before: Tensor, fresh: Tensor, first: int) -> bool:
        """Whether two tensors have the shapes that `rows` needs."""
        more = len(before) - first - self.num_before if before.ndim else -1
        return more >= 0 and fresh.shape == (first + self.num_items + more, *before.shape[1:])


@runtime_checkable
class CarriesOver(Protocol):
    """A module whose tensors need more than a copy of rows when the catalogue changes.

    Examples are graphs that hold item numbers and projected titles. The method covers the module's whole
    state dict, that of its children included.
    """

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert the module's tensors to the present catalogue.

        Args:
            before: The module's state dict in a checkpoint of the earlier catalogue.
            change: How the catalogues differ.
        """
        ...
