"""Session-kNN: recommends items of the most similar training sessions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm4sbr.baselines.clicks import clicks_of, finish
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.contracts.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Ranged
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
    """Training sessions with an index from items to sessions."""

    num_items: PositiveInt
    table: SessionTable
    start: IntArray  # (V + 2,): item k has the entries start[k]:start[k + 1] of `entry`
    entry: IntArray  # (N,) entries of the table by item, oldest session first
    idf: FloatArray  # (V,): ln(S / |S_i|), 0 for an item without a session
    first_index: int  # example_index of the first training example
    session: IntArray  # (E,) session of each training example


class SessionKNN(Ranged):
    r"""Session-based nearest neighbours: SKNN, with options for V-SKNN, S-SKNN and, in part, VSTAN.

    Candidates are the `sample_size` latest training sessions that share an item with the current session s.
    The k most similar of them, :math:`N(s)`, vote for their items (Jannach & Ludewig, RecSys 2017):

    .. math:: score(i) = \left(1 + \lambda_{idf} \ln\tfrac{S}{|S_i|}\right)
        \sum_{n \in N(s),\, i \in n} sim(s, n) \, v_s(n) \, u_n(i), \quad
        sim(s, n) = \frac{\sum_{i \in s \cap n} w_s(i)}{\|w_s\| \sqrt{|n|}}

    where w weights the items of s by the age of their click; for an item with several clicks the last one
    counts. :math:`S_i` are the training sessions with item i, and S is the number of all training sessions.

    - SKNN: w = v = u = 1, the cosine of two sets of items. This is the default, with the paper's k and m.
    - V-SKNN (Ludewig & Jannach 2018, arXiv:1803.09587): ``weighting="linear", similarity="dot"``, the sum
      without its divisor; `idf` as in Ludewig et al. 2020, arXiv:1910.12781.
    - S-SKNN (same paper): ``score_weighting="linear"``; v falls with the age of the latest shared click.
    - STAN (Garg et al., SIGIR 2019) and VSTAN (arXiv:1910.12781): ``weighting="exponential"``; u falls with
      the distance between i and the latest shared item in the neighbour,
      :math:`u_n(i) = \exp(-|p_n(i) - p_n(i^*)| / h)`. Their decay with the age of a session needs
      timestamps, which examples do not have.

    The latest sessions are the last ones among the training examples; this is the order of time only if the
    data module sorts them by time. Ties in similarity are broken by the later session.

    Decays of the authors' code (session-rec) by their names there, with i the age of a click from 1 and n the
    length of the session. For w: ``div`` (its default for V-SKNN) is ``linear`` here, ``quadratic`` and
    ``log`` are equal, ``linear`` (``1 - 0.1 (i - 1)`` at the first ten positions) is absent. For v: ``div``
    (its default) is ``harmonic`` here; ``linear`` (``1 - 0.1 i``), ``quadratic`` (``1 / i^2``) and ``log``
    (``1 / log10(i + 1.7)``, one click older than here) are absent. VSTAN's v is ``exponential``, with
    `horizon` for both of its λ_spw and λ_ipw (1.02 each in the code). Their code also counts clicks instead
    of sessions in :math:`|S_i|`.

    A training example is identified by its `example_index`, and its own session is excluded from its
    neighbours. In hand-made batches, give other sessions an `example_index` outside the training split, such
    as -1.

    Args:
        k: Number of neighbours.
        sample_size: m, number of candidates; 0 for all.
        similarity: ``cosine``, or ``dot`` without the divisor, which favours long neighbours.
        weighting: w, decay with the number of later clicks; see `DECAYS`.
        score_weighting: v, decay with the number of clicks since the latest shared click.
        idf: :math:`\lambda_{idf}`, weight of the inverse document frequency of items; 0 disables it.
        horizon: Clicks after which an ``exponential`` weight falls to 1/e (STAN's :math:`\lambda_1`).
        item_horizon: h, horizon in clicks of the neighbour (STAN's :math:`\lambda_3`); None for u = 1.
        remind: Whether clicked items may be recommended again.

    Shapes:
        - scores: `SessionBatch` -> ``(B, V)``
    """

    def __init__(
        self,
        k: PositiveInt = 500,
        sample_size: NonNegativeInt = 1000,
        similarity: Literal["cosine", "dot"] = "cosine",
        weighting: Decay = "uniform",
        score_weighting: Decay = "uniform",
        idf: NonNegativeFloat = 0.0,
        horizon: PositiveFloat = 2.0,
        item_horizon: PositiveFloat | None = None,
        remind: bool = True,
    ) -> None:
        check_decay(weighting=weighting, score_weighting=score_weighting)
        if similarity not in ("cosine", "dot"):
            raise InputError("similarity must be cosine or dot", value=similarity)
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
        """Scores over the catalogue, ``(B, V)``; a large batch is scored in blocks of sessions.

        Raises:
            InputError: If the model has not been fitted.
        """
        if self._index is None:
            raise InputError("SessionKNN has not counted any sessions", hint="Call fit first")
        index, (item_ids, lengths, target, example) = self._index, batch[:4]
        shared = np.diff(index.start)[item_ids.cpu().numpy()].sum(1)  # (B,) most pairs; item 0 has none
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
        shared = clicks.row[click] * shape[1] + table.session[entry]  # cell in (B, S) of each shared item
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
        """Rows and columns of the neighbours in a similarity matrix ``(B, S)``, the latest session last."""
        row, session = np.nonzero(similarity)
        if self.sample_size:
            from_end = offsets(row, len(similarity))[row + 1] - np.arange(len(row))  # 1 for the latest
            recent = from_end <= self.sample_size
            row, session = row[recent], session[recent]
        best = largest(row, similarity[row, session], self.k)
        return row[best], session[best]

    def _own(self, index: _Index, batch: SessionBatch) -> IntArray:
        """Cells of training examples with their own sessions."""
        example = batch.example_index.cpu().numpy() - index.first_index  # (B,)
        row = np.flatnonzero((example >= 0) & (example < len(index.session)))
        own: IntArray = row * len(index.table.length) + index.session[example[row]]
        return own


def _highest(cell: IntArray, value: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The largest value in each cell as a flat array; 0 in empty cells."""
    found = np.zeros(shape[0] * shape[1])
    np.maximum.at(found, cell, value)
    return found
