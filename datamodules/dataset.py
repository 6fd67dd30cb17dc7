"""Examples from sessions, and batches from examples, without a Python loop over either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from llm4sbr.contracts.batch import SessionBatch, build_session_graph
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.contracts.mapped import Texts

from .clicks import blocks


def expand(
    clicks: npt.NDArray[Any],
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
    narrow: Any = np.int32 if max(len(clicks), len(lengths)) < 1 << 31 else np.int64
    first = (np.cumsum(lengths, dtype=np.int64) - lengths).astype(narrow)  # (S,)
    if mode == "prefixes":
        counts = np.maximum(lengths - 1, 0)  # (S,) examples of each session
        session = np.repeat(np.arange(len(lengths), dtype=narrow), counts)  # (E,)
        start = np.repeat(first, counts)
        before = (np.cumsum(counts, dtype=np.int64) - counts).astype(narrow)  # (S,) examples before a session
        end = np.arange(1, len(session) + 1, dtype=narrow)
        end += start
        end -= np.repeat(before, counts)  # (E,)
    else:
        session = np.flatnonzero(lengths >= (1 if mode == "predict" else 2)).astype(narrow)
        start = first[session]
        end = start + lengths[session].astype(narrow) - narrow(0 if mode == "predict" else 1)
    target = np.zeros(len(end), dtype=clicks.dtype) if mode == "predict" else clicks[end]
    ids = session_ids if isinstance(session_ids, Texts) else tuple(session_ids)
    return Examples(clicks, start, end, target, session, ids)


def keep_latest(examples: Examples, max_length: int) -> Examples:
    """Shorten every prefix to its latest `max_length` clicks."""
    if longest(examples) <= max_length:
        return examples
    return replace(examples, start=np.maximum(examples.start, examples.end - max_length))


def longest(examples: Examples) -> int:
    """Length of the longest prefix."""
    parts = (examples.end[part] - examples.start[part] for part in blocks(len(examples)))
    return max((int(part.max(initial=0)) for part in parts), default=0)


class SessionDataset(Dataset[SessionBatch]):
    """Serves examples as batches; a whole batch is gathered at once.

    Use it with a `DataLoader` whose `collate_fn` is `identity`: the loader passes the indices of a whole
    batch to `__getitems__`, while samplers, including distributed ones, still work with single examples.

    Args:
        examples: Examples to serve.
        session_graph: Whether to build the session graph of each batch.
        max_length: Length of the longest prefix; the latest clicks are kept. None for no limit.

    Mapped examples stay on disk: a worker process gets their paths and shares the pages in memory.

    Shapes:
        - a batch: ``item_ids (B, L)`` with ``L`` the batch's longest prefix, the rest ``(B,)``

    >>> examples = expand(np.array([5, 6, 7]), np.array([3]), ["a"], "prefixes")
    >>> SessionDataset(examples, session_graph=False).__getitems__([1, 0]).item_ids.tolist()
    [[5, 6], [5, 0]]
    """

    def __init__(self, examples: Examples, session_graph: bool = True, max_length: int | None = None) -> None:
        self.examples = examples
        self.session_graph = session_graph
        self.max_length = max_length

    def lengths(self) -> Tensor:
        """Length of every prefix, ``(E,)``, in the smallest type that holds them."""
        most = longest(self.examples)
        if self.max_length is not None:
            most = min(most, self.max_length)
        found = np.empty(len(self), dtype=np.min_scalar_type(-most - 1))
        for part in blocks(len(self)):
            found[part] = np.minimum(self.examples.end[part] - self.examples.start[part], most)
        return torch.from_numpy(found)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> SessionBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SessionBatch:
        """The batch of the examples at `indices`, in this order; a filler row has no target."""
        examples = self.examples
        given = np.asarray(indices, dtype=np.int64)  # (B,)
        rows = np.maximum(given, 0)  # a filler row repeats the clicks of an arbitrary example
        start, end = examples.start[rows].astype(np.int64), examples.end[rows].astype(np.int64)
        if self.max_length is not None:
            start = np.maximum(start, end - self.max_length)
        lengths = end - start  # (B,)
        columns = np.arange(lengths.max(initial=0))  # (L,)
        position = np.minimum(start[:, None] + columns, len(examples.clicks) - 1)  # (B, L)
        items = np.where(columns < lengths[:, None], examples.clicks[position], 0).astype(np.int64)  # (B, L)
        item_ids, lengths_ = torch.from_numpy(items), torch.from_numpy(lengths)
        return SessionBatch(
            item_ids=item_ids,
            lengths=lengths_,
            target=torch.from_numpy(np.where(given < 0, 0, examples.target[rows]).astype(np.int64)),
            example_index=torch.from_numpy(examples.first_index + rows),
            graph=build_session_graph(item_ids, lengths_) if self.session_graph else None,
        )


def identity(batch: SessionBatch) -> SessionBatch:
    """Return the batch unchanged, since `SessionDataset` already serves batches; picklable for workers."""
    return batch
