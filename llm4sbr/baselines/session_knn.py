"""Session-kNN: what the most similar training sessions clicked."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm4sbr.baselines.clicks import clicks_of, finish
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.nn.counting import (
    DECAYS,
    Decay,
    FloatArray,
    SessionTable,
    blocks,
    check_decay,
    largest,
    offsets,
    spread,
    table_of,
    tally,
)


class _Index(NamedTuple):
    """Training sessions, and for every item those that hold it."""

    num_items: int
    table: SessionTable
    start: IntArray  # (V + 2,): item k has the entries start[k]:start[k + 1] of `entry`
    entry: IntArray  # (N,) entries of the table by item, oldest session first
    idf: FloatArray  # (V,): ln(S / |S_i|), 0 where an item has no session
    first_index: int  # example_index of the first training example
    session: IntArray  # (E,) session of each training example


class SessionKNN:
    r"""Session-based nearest neighbours: SKNN, and by its options V-SKNN, S-SKNN and, in part, VSTAN.

    Candidates are the `sample_size` latest training sessions that share an item with the current session s.
    The k most similar of them, :math:`N(s)`, vote for their items (Jannach & Ludewig, RecSys 2017):

    .. math:: score(i) = \left(1 + \lambda_{idf} \ln\tfrac{S}{|S_i|}\right)
        \sum_{n \in N(s),\, i \in n} sim(s, n) \, v_s(n) \, u_n(i), \quad
        sim(s, n) = \frac{\sum_{i \in s \cap n} w_s(i)}{\|w_s\| \sqrt{|n|}}

    where w weighs the items of s by the age of their click; one clicked more than once counts where it was
    clicked last. :math:`S_i` are the training sessions that hold item i, S is the number of all.

    - SKNN: w = v = u = 1, the cosine of two sets of items. The default, with the paper's k and m.
    - V-SKNN (Ludewig & Jannach 2018, arXiv:1803.09587): ``weighting="linear", similarity="dot"``, the sum
      without its divisor; `idf` as in Ludewig et al. 2020, arXiv:1910.12781.
    - S-SKNN (2018, too): ``score_weighting="linear"``, so v falls with the age of the latest shared click.
    - STAN (Garg et al., SIGIR 2019) and VSTAN (arXiv:1910.12781): ``weighting="exponential"``, and u falls
      with the distance, in the neighbour, of i from the latest shared item,
      :math:`u_n(i) = \exp(-|p_n(i) - p_n(i^*)| / h)`. Their decay with the age of a session needs a clock,
      which examples don't have.

    The latest sessions are those that stand last among the training examples: by time only where the data
    module orders them so. Of equally similar ones the latest are chosen. The authors' code (session-rec)
    counts clicks in :math:`|S_i|`, and its decay called linear is another, cut at ten clicks; its ``div`` is
    ``linear`` here in w, and ``harmonic`` in v.

    A training example is known by its `example_index`, and its own session is not its neighbour. In batches
    made by hand, other sessions need an `example_index` outside the training split's, such as -1.

    Args:
        k: Neighbours.
        sample_size: m, candidates; 0 for all.
        similarity: ``cosine``, or ``dot`` without the divisor, which favours long neighbours.
        weighting: w, by the clicks since; see `DECAYS`.
        score_weighting: v, by the clicks since the latest shared one.
        idf: :math:`\lambda_{idf}`, how much rare items are lifted; 0 for not.
        horizon: Clicks in which an ``exponential`` weight falls to 1/e (STAN's :math:`\lambda_1`).
        item_horizon: h, the same in clicks of the neighbour (STAN's :math:`\lambda_3`); None for u = 1.
        remind: Whether clicked items may be recommended again.

    Shapes:
        - scores: `SessionBatch` -> ``(B, V)``
    """

    def __init__(
        self,
        k: int = 500,
        sample_size: int = 1000,
        similarity: Literal["cosine", "dot"] = "cosine",
        weighting: Decay = "uniform",
        score_weighting: Decay = "uniform",
        idf: float = 0.0,
        horizon: float = 2.0,
        item_horizon: float | None = None,
        remind: bool = True,
    ) -> None:
        check_decay(weighting=weighting, score_weighting=score_weighting)
        if k < 1 or sample_size < 0:
            raise InputError("k is at least 1 and sample_size at least 0", value=(k, sample_size))
        if similarity not in ("cosine", "dot"):
            raise InputError("similarity must be cosine or dot", value=similarity)
        if horizon <= 0 or (item_horizon is not None and item_horizon <= 0):
            raise InputError("a horizon is a positive number of clicks", value=(horizon, item_horizon))
        if idf < 0:
            raise InputError("idf is at least 0", value=idf)
        self.k, self.sample_size, self.similarity = k, sample_size, similarity
        self.weighting, self.score_weighting, self.idf = weighting, score_weighting, idf
        self.horizon, self.item_horizon, self.remind = horizon, item_horizon, remind
        self._index: _Index | None = None

    def fit(self, examples: Examples, num_items: int) -> None:
        """Index the training sessions."""
        table = table_of(examples)
        entry, start = np.argsort(table.item, kind="stable"), offsets(table.item, num_items + 1)
        idf = np.log(len(table.length) / np.maximum(np.diff(start)[1:], 1)) * (np.diff(start)[1:] > 0)
        session = np.unique(examples.session, return_inverse=True)[1]  # as in Examples.sessions
        self._index = _Index(num_items, table, start, entry, idf, examples.first_index, session)

    def scores(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``; a few sessions at a time where they are many.

        Raises:
            InputError: It has not been fitted.
        """
        if self._index is None:
            raise InputError("SessionKNN has not counted any sessions", hint="Call fit first")
        index, (item_ids, lengths, target, example) = self._index, batch[:4]
        shared = np.diff(index.start)[item_ids.cpu().numpy()].sum(1)  # (B,) pairs at most; item 0 has none
        parts = [
            self._scores(index, SessionBatch(item_ids[some], lengths[some], target[some], example[some]))
            for some in blocks(shared + len(index.table.length) + index.num_items)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, index.num_items)

    def _scores(self, index: _Index, batch: SessionBatch) -> Tensor:
        table, clicks = index.table, clicks_of(batch)
        shape = len(batch.lengths), len(table.length)  # (B, S)
        weight = DECAYS[self.weighting](clicks.age, clicks.length, self.horizon)  # (C,)
        click, where = spread(index.start, clicks.item)
        entry = index.entry[where]
        shared = clicks.row[click] * shape[1] + table.session[entry]  # a cell of (B, S) for each shared item
        similarity = tally(shared, weight[click], shape)
        similarity.reshape(-1)[self._own(index, batch)] = 0
        if self.similarity == "cosine":
            norm = np.sqrt(np.bincount(clicks.row, weight**2, shape[0]))  # (B,)
            similarity /= norm[:, None] * np.sqrt(np.diff(table.start))
        row, session = self._nearest(similarity)  # (P,) pairs of a session and a neighbour
        vote, near = similarity[row, session], row * shape[1] + session
        if self.score_weighting != "uniform":
            decay = DECAYS[self.score_weighting](clicks.age, clicks.length, self.horizon)
            vote *= _highest(shared, decay[click], shape)[near]
        pair, entry_ = spread(table.start, session)
        vote = vote[pair]
        if self.item_horizon is not None:
            anchor = _highest(shared, table.position[entry].astype(np.float64), shape)[near]  # p_n(i*)
            vote *= np.exp(-np.abs(table.position[entry_] - anchor[pair]) / self.item_horizon)
        cell = row[pair] * index.num_items + table.item[entry_] - 1
        total = tally(cell, vote, (shape[0], index.num_items))
        if self.idf:
            total *= 1 + self.idf * index.idf
        return finish(total, clicks, self.remind, batch)

    def _nearest(self, similarity: FloatArray) -> tuple[IntArray, IntArray]:
        """Rows and columns of the neighbours in a matrix of similarities, ``(B, S)``, the latest last."""
        row, session = np.nonzero(similarity)
        if self.sample_size:
            from_end = offsets(row, len(similarity))[row + 1] - np.arange(len(row))  # 1 for the latest
            recent = from_end <= self.sample_size
            row, session = row[recent], session[recent]
        best = largest(row, similarity[row, session], self.k)
        return row[best], session[best]

    def _own(self, index: _Index, batch: SessionBatch) -> IntArray:
        """Cells of training examples and their own sessions."""
        example = batch.example_index.cpu().numpy() - index.first_index  # (B,)
        row = np.flatnonzero((example >= 0) & (example < len(index.session)))
        own: IntArray = row * len(index.table.length) + index.session[example[row]]
        return own


def _highest(cell: IntArray, value: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The largest value in each cell, 0 in those without one; flat."""
    found = np.zeros(shape[0] * shape[1])
    np.maximum.at(found, cell, value)
    return found
