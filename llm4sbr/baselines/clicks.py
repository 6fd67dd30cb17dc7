"""Shared parts of the baselines: their contract, a batch's distinct clicks, and scores as a tensor."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.nn.counting import FloatArray, latest


class Baseline(Protocol):
    """A recommender without gradients: it counts training sessions, then scores the catalogue."""

    def fit(self, examples: Examples, num_items: int) -> None:
        """Count the sessions of the training examples; earlier counts are replaced."""
        ...

    def scores(self, batch: SessionBatch) -> Tensor:
        """Scores ``(B, V)``; column ``k - 1`` is item ``k``, and 0 means no evidence for the item."""
        ...


class Clicks(NamedTuple):
    """The distinct items of each session of a batch with their latest clicks; ``C`` entries.

    Shapes:
        - row: ``(C,)`` session in the batch, item: ``(C,)`` in 1..V
        - age: ``(C,)`` later clicks, 0 for the last click; length: ``(C,)`` clicks of the session
    """

    row: IntArray
    item: IntArray
    age: FloatArray
    length: FloatArray


def clicks_of(batch: SessionBatch) -> Clicks:
    """The distinct clicks of a batch, without padding."""
    item_ids, length = batch.item_ids.cpu().numpy(), batch.lengths.cpu().numpy()
    row, column = np.nonzero(np.arange(item_ids.shape[1]) < length[:, None])
    item = item_ids[row, column]
    kept = latest(row, item)
    row, column, item = row[kept], column[kept], item[kept]
    return Clicks(row, item, (length[row] - 1 - column).astype(np.float64), length[row].astype(np.float64))


def finish(scores: FloatArray, clicks: Clicks, remind: bool, batch: SessionBatch) -> Tensor:
    """Convert scores to float32 on the batch's device; clicked items get 0 unless `remind`.

    Rounding float64 sums to float32 makes scores tie if they differ only by the order of their terms.
    """
    if not remind:
        scores[clicks.row, clicks.item - 1] = 0
    return torch.from_numpy(scores.astype(np.float32)).to(batch.item_ids.device)
