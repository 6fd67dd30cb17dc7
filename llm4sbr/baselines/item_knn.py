"""Item-kNN: what was clicked in the same sessions as the current clicks."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from llm4sbr.baselines.clicks import clicks_of, finish
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.nn.counting import (
    DECAYS,
    Decay,
    check_decay,
    spread,
    tally,
)
from llm4sbr.nn.item_neighbors import ItemNeighbors, Order, count_item_neighbors


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
        order: Order = "any",
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
        self._fitted: ItemNeighbors | None = None

    def fit(self, examples: Examples, num_items: int) -> None:
        """Find the neighbours of every item, some items at a time."""
        self._fitted = count_item_neighbors(
            examples,
            num_items,
            neighbors=self.neighbors,
            regularization=self.regularization,
            alpha=self.alpha,
            order=self.order,
            pair_decay=self.pair_decay,
            horizon=self.horizon,
        )

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

    def _known(self) -> ItemNeighbors:
        if self._fitted is None:
            raise InputError("ItemKNN has not counted any sessions", hint="Call fit first")
        return self._fitted
