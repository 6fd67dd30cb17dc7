"""Approximate search: a graph of near items, by usearch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, PositiveShare, Ranged
from llm4sbr.nn.functional import unit_rows
from llm4sbr.nn.retrieval.retrieval import Retrieval
from llm4sbr.nn.retrieval.scan import Nearest, Own, ScannedItems, refuse_broken
from llm4sbr.nn.retrieval.tables import Float32Table

_WIDEST = 4096  # items that a search may compare with at most
_SAMPLE, _AMONG = 128, 20  # queries, and items of each, by which recall is measured
_SPARE = 2  # times as many candidates as items are scored exactly


class IndexedItems(Ranged, Retrieval):
    """Approximate: a graph of near items (HNSW, usearch), whose candidates are scored in float32.

    The width of a search is twice the smallest at which the wanted share of the best items is found. The
    share is measured on mixtures of the items, when the index is made, and stands in `GraphOfItems.recall`.
    A search of one session takes about a millisecond, and making the index minutes for a million items.

    Some searches are exact and take the time of a product in float32: those with allowed items, which a graph
    cannot leave out, and those that need the log-sum-exp over all items, as `RepeatExplore` does where a
    session's own items may be recommended.

    Args:
        recall: Wanted share of the 20 best items.
        connectivity: Neighbours of an item in the graph.
        expansion: Items among which the neighbours of a new item are chosen.
    """

    approximate = True

    def __init__(
        self, recall: PositiveShare = 0.99, connectivity: PositiveInt = 16, expansion: PositiveInt = 128
    ) -> None:
        self.recall, self.connectivity, self.expansion = recall, connectivity, expansion

    def over(self, items: Tensor) -> GraphOfItems:
        """Make the index.

        Raises:
            InputError: If usearch is not installed.

        Warns:
            UserWarning: If the widest search finds less than the wanted share.
        """
        return GraphOfItems(items, self)


class GraphOfItems:
    """A graph of near items.

    Args:
        items: Item vectors.
        settings: Settings of the index.

    Attributes:
        recall: Share of the 20 best items that a search finds, of mixtures of items.

    Shapes:
        - items: ``(V, D)`` float32
    """

    def __init__(self, items: Tensor, settings: IndexedItems) -> None:
        try:
            from usearch.index import Index
        except ModuleNotFoundError as error:
            raise InputError(
                f"the index needs a package that is not installed: {error.name}",
                hint='pip install "llm4sbr[index]", or take another retrieval',
            ) from error
        self.items, self._exact = items, ScannedItems(items, Float32Table(items))
        self._index: Any = Index(
            ndim=items.size(1) + 1,
            metric="ip",
            dtype="bf16",
            connectivity=settings.connectivity,
            expansion_add=settings.expansion,
        )
        self._index.add(np.arange(len(items)), _equally_long(items.cpu()).numpy(), threads=_threads())
        self.memory = int(self._index.memory_usage)
        self.recall = self._widen(settings.recall)
        if self.recall < settings.recall:
            warnings.warn(
                f"the index finds {self.recall:.1%} of the best items, less than {settings.recall:.1%}",
                UserWarning,
                stacklevel=4,
            )

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        own: Own | None = None,
        allowed: Tensor | None = None,
        log_sum: bool = False,
    ) -> Nearest:
        """Find most of the best items of each query; all of them with `allowed` or `log_sum`."""
        clicks = 0 if own is None else own.columns.size(1)
        count = _SPARE * k + clicks
        if allowed is not None or log_sum or count > min(_WIDEST, len(self.items)):
            return self._exact.search(query, k, own=own, allowed=allowed, log_sum=log_sum)
        refuse_broken(query)
        columns = self._candidates(query, count)  # (B, n)
        scores = torch.bmm(self.items[columns.clamp_min(0)], query.unsqueeze(2)).squeeze(2)
        left_out = columns < 0
        if own is not None:
            left_out |= (columns.unsqueeze(2) == own.columns.unsqueeze(1)).any(2)
        best, places = scores.masked_fill(left_out, float("-inf")).topk(k, dim=1)
        return Nearest(best, columns.gather(1, places).clamp_min_(0), None)

    def scores(self, query: Tensor) -> Tensor:
        """Scores of all items, ``(B, V)`` float32."""
        return self._exact.scores(query)

    def _candidates(self, query: Tensor, count: int) -> Tensor:
        """Near items of each query, ``(B, count)``; -1 for none."""
        wider = torch.nn.functional.pad(query.cpu(), (0, 1))  # the further number of the items adds nothing
        found = self._index.search(unit_rows(wider).numpy(), count, threads=_threads())
        keys = np.asarray(found.keys).reshape(len(query), -1).astype(np.int64)
        columns = torch.from_numpy(np.where(keys < len(self.items), keys, -1)).to(query.device)
        padded: Tensor = torch.nn.functional.pad(columns, (0, count - columns.size(1)), value=-1)
        return padded

    def _widen(self, wanted: float) -> float:
        """Set the width of a search, and return the share of the best items that it finds."""
        k = min(_AMONG, len(self.items))
        draw = torch.Generator().manual_seed(0)
        pairs = torch.randint(len(self.items), (2, _SAMPLE), generator=draw).to(self.items.device)
        query = unit_rows(self.items[pairs[0]]) + 0.5 * unit_rows(self.items[pairs[1]])
        best = self._exact.search(query, k).columns
        width, found, margin = 2 * k, 0.0, False
        while width < _WIDEST and not margin:
            margin = found >= wanted  # once wider than the sample needs: sessions may be unlike it
            width *= 2
            self._index.expansion_search = width
            columns = self._candidates(query, min(_SPARE * k, len(self.items)))
            found = float((best.unsqueeze(2) == columns.unsqueeze(1)).any(2).float().mean())
        return found


def _equally_long(items: Tensor) -> Tensor:
    """Items with one further number, so that all have the same length: a graph is good at angles.

    A query with 0 in that place has its products with the items unchanged (Bachrach et al. 2014, RecSys).
    """
    length = torch.linalg.vector_norm(items, dim=1)
    longest = length.max().clamp_min(1e-30)
    further = (longest.square() - length.square()).clamp_min_(0).sqrt()
    found: Tensor = torch.cat((items, further.unsqueeze(1)), 1) / longest
    return found


def _threads() -> int:
    """Threads of usearch: those of torch, which a server sets."""
    return torch.get_num_threads()
