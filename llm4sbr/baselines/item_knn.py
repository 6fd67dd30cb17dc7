"""Item-kNN: what was clicked in the same sessions as the current clicks."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray

from .clicks import (
    DECAYS,
    Decay,
    FloatArray,
    SessionTable,
    blocks,
    check_decay,
    clicks_of,
    finish,
    largest,
    offsets,
    spread,
    table_of,
    tally,
)


class _Neighbors(NamedTuple):
    """The nearest items of every item, item by item."""

    num_items: int
    start: IntArray  # (V + 2,): item k has the entries start[k]:start[k + 1]; item 0 has none
    item: IntArray  # (M,) in 1..V
    similarity: FloatArray  # (M,) > 0


class ItemKNN:
    r"""Items that are clicked together (Item-KNN of Hidasi et al., ICLR 2016, arXiv:1511.06939).

    The neighbours of an item are the most similar other items. The score of j is the sum, over the items i of
    the session s that have j as a neighbour, of

    .. math:: w(age_s(i)) \, sim(i, j), \quad
        sim(i, j) = \frac{c_{ij}}{(|S_i| + \lambda)^\alpha (|S_j| + \lambda)^{1 - \alpha}}, \quad
        c_{ij} = \sum_{s \in S_i \cap S_j} d(|p_s(i) - p_s(j)| - 1)

    with :math:`S_i` the training sessions that hold item i and :math:`p_s(i)` the position of its latest
    click in s. The default is the paper's: d = 1, so that c counts sessions and :math:`\lambda = 0` gives the
    cosine, and only the last click asks. (The authors' code counts an item clicked twice in a session
    twice, their formula once.) ``order="later", pair_decay="harmonic", alpha=1, regularization=0`` are
    sequential rules (SR, Ludewig & Jannach 2018, arXiv:1803.09587).

    Training sessions score themselves favourably: their own clicks are among the counts.

    Args:
        neighbors: Similar items kept for each item; of equal ones those with the higher number.
        regularization: :math:`\lambda`, which keeps chance co-occurrences of rare items down.
        alpha: 0.5 treats both items alike, 1 divides by the clicked item's sessions alone (confidence).
        order: Count all pairs, or only items clicked ``later`` than the asking one.
        pair_decay: d, by the clicks between the two.
        weighting: w, by the clicks since the asking one; see `DECAYS`.
        horizon: Clicks in which an ``exponential`` weight falls to 1/e.
        remind: Whether clicked items may be recommended again.

    Shapes:
        - scores: `SessionBatch` -> ``(B, V)``
    """

    def __init__(
        self,
        neighbors: int = 100,
        regularization: float = 20.0,
        alpha: float = 0.5,
        order: Literal["any", "later"] = "any",
        pair_decay: Decay = "uniform",
        weighting: Decay = "last",
        horizon: float = 2.0,
        remind: bool = True,
    ) -> None:
        check_decay(pair_decay=pair_decay, weighting=weighting)
        if neighbors < 1:
            raise InputError("neighbors is at least 1", value=neighbors)
        if regularization < 0 or not 0 <= alpha <= 1:
            raise InputError("regularization is at least 0 and alpha in 0..1", value=(regularization, alpha))
        if order not in ("any", "later"):
            raise InputError("order must be any or later", value=order)
        if horizon <= 0:
            raise InputError("horizon is a positive number of clicks", value=horizon)
        self.neighbors, self.regularization, self.alpha = neighbors, regularization, alpha
        self.order, self.pair_decay = order, pair_decay
        self.weighting, self.horizon, self.remind = weighting, horizon, remind
        self._fitted: _Neighbors | None = None

    def fit(self, examples: Examples, num_items: int) -> None:
        """Find the neighbours of every item, some items at a time."""
        table = table_of(examples)
        by_item = np.argsort(table.item, kind="stable")
        start = offsets(table.item, num_items + 1)  # (V + 2,)
        sessions = np.diff(start)[1:]  # (V,): |S_i|
        size = np.diff(table.start)  # (S,) distinct items of each session
        pairs = np.bincount(table.item, size[table.session], num_items + 1)[1:].astype(np.int64)
        found: list[tuple[IntArray, IntArray, FloatArray]] = []
        for block in blocks(pairs + num_items):
            items = np.arange(block.start, block.stop) + 1
            count = self._count(table, by_item, start, items, num_items)  # (block, V)
            own = (sessions[block] + self.regularization)[:, None] ** self.alpha
            count /= np.maximum(own * (sessions + self.regularization) ** (1 - self.alpha), 1e-12)
            row, column = np.nonzero(count)
            similarity = count[row, column]
            kept = largest(row, similarity, self.neighbors)
            found.append((items[row[kept]], column[kept] + 1, similarity[kept]))
        asking, item, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
        self._fitted = _Neighbors(num_items, offsets(asking, num_items + 1), item, similarity)

    def neighbours(self) -> tuple[IntArray, IntArray, FloatArray]:
        """The neighbours of every item, item by item: item ``k`` has the entries ``start[k]:start[k + 1]``.

        Shapes:
            - start: ``(V + 2,)``; item: ``(M,)`` in 1..V; similarity: ``(M,)``, above 0

        Raises:
            InputError: It has not been fitted.
        """
        known = self._known()
        return known.start, known.item, known.similarity

    def scores(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``.

        Raises:
            InputError: It has not been fitted.
        """
        known, clicks = self._known(), clicks_of(batch)
        weight = DECAYS[self.weighting](clicks.age, clicks.length, self.horizon)  # (C,)
        asking = np.flatnonzero(weight > 0)
        owner, where = spread(known.start, clicks.item[asking])
        click = asking[owner]
        cell = clicks.row[click] * known.num_items + known.item[where] - 1
        shape = len(batch.lengths), known.num_items
        total = tally(cell, weight[click] * known.similarity[where], shape)
        return finish(total, clicks, self.remind, batch)

    def _known(self) -> _Neighbors:
        if self._fitted is None:
            raise InputError("ItemKNN has not counted any sessions", hint="Call fit first")
        return self._fitted

    def _count(
        self, table: SessionTable, by_item: IntArray, start: IntArray, items: IntArray, num_items: int
    ) -> FloatArray:
        """Co-occurrences of some items with all, ``(len(items), V)``; none with themselves."""
        row, where = spread(start, items)
        entry = by_item[where]  # the asking item's entry in each of its sessions
        owner, other = spread(table.start, table.session[entry])
        gap = table.position[other] - table.position[entry][owner]  # > 0: clicked later
        paired = np.flatnonzero(gap > 0 if self.order == "later" else gap != 0)
        owner, other, gap = owner[paired], other[paired], gap[paired]
        length = table.length[table.session[other]].astype(np.float64)
        weight = DECAYS[self.pair_decay](np.abs(gap) - 1.0, length, self.horizon)
        cell = row[owner] * num_items + table.item[other] - 1
        return tally(cell, weight, (len(items), num_items))
