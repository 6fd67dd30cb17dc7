"""Item-kNN: recommends items that are clicked in the same sessions as the current clicks."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from llm4sbr.baselines.clicks import clicks_of, finish
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Ranged, Share
from llm4sbr.nn.counting import (
    DECAYS,
    Decay,
    check_decay,
    spread,
    tally,
)
from llm4sbr.nn.item_neighbors import ItemNeighbors, Order, count_item_neighbors


class ItemKNN(Ranged):
    r"""Item-based nearest neighbours (Item-KNN of Hidasi et al., ICLR 2016, arXiv:1511.06939).

    The neighbours of an item are the most similar other items. The score of j is a sum over the items i of
    the session s that have j as a neighbour, with the terms

    .. math:: w(age_s(i)) \, sim(i, j), \quad
        sim(i, j) = \frac{c_{ij}}{(|S_i| + \lambda)^\alpha (|S_j| + \lambda)^{1 - \alpha}}, \quad
        c_{ij} = \sum_{s \in S_i \cap S_j} d(|p_s(i) - p_s(j)| - 1)

    with :math:`S_i` the training sessions that hold item i and :math:`p_s(i)` the position of its latest
    click in s. The default follows the paper: d = 1, so c counts sessions and :math:`\lambda = 0` gives the
    cosine, and only the last click of the session is used. (The authors' code counts an item clicked twice in
    a session twice, their formula once.)

    ``order="later", pair_decay="harmonic", alpha=1, regularization=0`` gives sequential rules (SR, Ludewig &
    Jannach 2018, arXiv:1803.09587): c then sums over every click on i and every later click on j in the same
    session, repeated clicks and i = j included. The authors' code (session-rec) counts pairs of at most ten
    clicks' distance; here the decay alone limits the distance.

    Scores of training sessions are biased upwards, because the counts include their own clicks.

    Args:
        neighbors: Number of neighbours kept for each item; ties are broken by the higher item number.
        regularization: :math:`\lambda`, which damps chance co-occurrences of rare items.
        alpha: Exponent of the query item's sessions; 0.5 is symmetric, 1 gives the confidence.
        order: Pairs to count: ``any``, or only clicks ``later`` than the query item's.
        pair_decay: d, decay with the number of clicks between the two items.
        weighting: w, decay with the number of clicks since the query item; see `DECAYS`.
        horizon: Number of clicks after which an ``exponential`` weight falls to 1/e.
        remind: Whether clicked items may be recommended again.

    Shapes:
        - scores: `SessionBatch` -> ``(B, V)``
    """

    def __init__(
        self,
        neighbors: PositiveInt = 100,
        regularization: NonNegativeFloat = 20.0,
        alpha: Share = 0.5,
        order: Order = "any",
        pair_decay: Decay = "uniform",
        weighting: Decay = "last",
        horizon: PositiveFloat = 2.0,
        remind: bool = True,
    ) -> None:
        check_decay(pair_decay=pair_decay, weighting=weighting)
        if order not in ("any", "later"):
            raise InputError("order must be any or later", value=order)
        self.neighbors, self.regularization, self.alpha = neighbors, regularization, alpha
        self.order, self.pair_decay = order, pair_decay
        self.weighting, self.horizon, self.remind = weighting, horizon, remind
        self._fitted: ItemNeighbors | None = None

    def fit(self, examples: Examples, num_items: int) -> None:
        """Find the neighbours of every item, in blocks of items."""
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
            InputError: If the model has not been fitted.
        """
        known, clicks = self._known(), clicks_of(batch)
        weight = DECAYS[self.weighting](clicks.age, clicks.length, self.horizon)  # (C,)
        used = np.flatnonzero(weight > 0)
        owner, where = spread(known.start, clicks.item[used])
        click = used[owner]
        cell = clicks.row[click] * known.num_items + known.item[where] - 1
        shape = len(batch.lengths), known.num_items
        total = tally(cell, weight[click] * known.similarity[where], shape)
        return finish(total, clicks, self.remind, batch)

    def _known(self) -> ItemNeighbors:
        if self._fitted is None:
            raise InputError("ItemKNN has not counted any sessions", hint="Call fit first")
        return self._fitted
