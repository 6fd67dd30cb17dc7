"""Examples from sessions, and batches from examples, without a Python loop over either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from llm4sbr.contracts.batch import SessionBatch, build_session_graph
from llm4sbr.contracts.examples import Examples, IntArray


def expand(
    clicks: IntArray,
    lengths: IntArray,
    session_ids: Sequence[str],
    mode: Literal["prefixes", "last", "predict"],
) -> Examples:
    """Expand whole sessions into examples.

    Args:
        clicks: Items of all sessions, concatenated.
        lengths: Number of clicks of each session.
        session_ids: The shop's session ids.
        mode: `prefixes`: every prefix of 1..L-1 clicks predicts the next click. `last`: only the last click
            is a target. `predict`: the whole session is the prefix and the target is unknown.

    Returns:
        Examples in session order, shorter prefixes first. A session of one click gives no example, except in
        the mode `predict`.

    Shapes:
        - clicks: ``(T,)``, lengths: ``(S,)``

    >>> examples = expand(np.array([5, 6, 7, 8]), np.array([3, 1]), ["a", "b"], "prefixes")
    >>> examples.prefixes(), examples.target.tolist()
    ([(5,), (5, 6)], [6, 7])
    """
    first = np.cumsum(lengths) - lengths  # (S,)
    if mode == "prefixes":
        counts = np.maximum(lengths - 1, 0)  # (S,) examples of each session
        session = np.repeat(np.arange(len(lengths)), counts)  # (E,)
        within = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts)  # (E,)
        end = first[session] + within + 1
    else:
        session = np.flatnonzero(lengths >= (1 if mode == "predict" else 2))
        end = first[session] + lengths[session] - (0 if mode == "predict" else 1)
    target = np.zeros_like(end) if mode == "predict" else clicks[end]
    return Examples(clicks, first[session], end, target, session, tuple(session_ids))


def keep_latest(examples: Examples, max_length: int) -> Examples:
    """Shorten every prefix to its latest `max_length` clicks."""
    return replace(examples, start=np.maximum(examples.start, examples.end - max_length))


class SessionDataset(Dataset[SessionBatch]):
    """Serves examples as batches; a whole batch is gathered at once.

    Use it with a `DataLoader` whose `collate_fn` is `identity`: the loader passes the indices of a whole
    batch to `__getitems__`, while samplers, including distributed ones, still work with single examples.

    Args:
        examples: Examples to serve.
        session_graph: Whether to build the session graph of each batch.

    Shapes:
        - a batch: ``item_ids (B, L)`` with ``L`` the batch's longest prefix, the rest ``(B,)``

    >>> examples = expand(np.array([5, 6, 7]), np.array([3]), ["a"], "prefixes")
    >>> SessionDataset(examples, session_graph=False).__getitems__([1, 0]).item_ids.tolist()
    [[5, 6], [5, 0]]
    """

    def __init__(self, examples: Examples, session_graph: bool = True) -> None:
        self.examples = examples
        self.session_graph = session_graph

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> SessionBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SessionBatch:
        """The batch of the examples at `indices`, in this order; a filler row has no target."""
        examples = self.examples
        given = np.asarray(indices, dtype=np.int64)  # (B,)
        rows = np.maximum(given, 0)  # a filler row repeats the clicks of an arbitrary example
        start = examples.start[rows]
        lengths = examples.end[rows] - start  # (B,)
        columns = np.arange(lengths.max(initial=0))  # (L,)
        position = np.minimum(start[:, None] + columns, len(examples.clicks) - 1)  # (B, L)
        items = np.where(columns < lengths[:, None], examples.clicks[position], 0)  # (B, L)
        item_ids, lengths_ = torch.from_numpy(items), torch.from_numpy(lengths)
        return SessionBatch(
            item_ids=item_ids,
            lengths=lengths_,
            target=torch.from_numpy(np.where(given < 0, 0, examples.target[rows])),
            example_index=torch.from_numpy(examples.first_index + rows),
            graph=build_session_graph(item_ids, lengths_) if self.session_graph else None,
        )


def identity(batch: SessionBatch) -> SessionBatch:
    """Return the batch unchanged, since `SessionDataset` already serves batches; picklable for workers."""
    return batch
