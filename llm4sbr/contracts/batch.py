"""Batches and interests: named tuples with a shape on every field.

Notation: ``B`` sessions in the batch, ``L`` clicks of the longest session, ``V`` items, ``K`` views, ``N``
graph nodes, ``M`` graph edges, ``d`` hidden size, ``d_t`` text size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class SessionGraph(NamedTuple):
    """All sessions of a batch as one disconnected graph of their distinct items."""

    nodes: Tensor  # (N,) long: item id of each node; the nodes of one session are contiguous
    edge_index: Tensor  # (2, M) long: distinct transitions u -> v between consecutive clicks
    alias: Tensor  # (B, L) long: node of each click; 0 at padding, which `lengths` masks


class SessionBatch(NamedTuple):
    """A batch of session examples with optional views."""

    item_ids: Tensor  # (B, L) long, right-padded with 0; items are 1..V
    lengths: Tensor  # (B,) long, >= 1
    target: Tensor  # (B,) long in 1..V; 0 if unknown (prediction, or a filler row)
    example_index: Tensor  # (B,) long: row in the view table
    views: Tensor | None = None  # (B, K, d_t) float: LLM views; K = 2: long-term, short-term
    view_mask: Tensor | None = None  # (B, K) bool: False where a view is unknown
    graph: SessionGraph | None = None  # the whole batch as one graph

    def padding_mask(self) -> Tensor:
        """True at real clicks, False at padding: ``(B, L)`` bool."""
        return torch.arange(self.item_ids.size(1), device=self.item_ids.device) < self.lengths.unsqueeze(1)

    def rows(self, begin: int, end: int) -> SessionBatch:
        """Sessions ``begin:end``, in as many columns; a backbone builds their graph when it needs one.

        >>> batch_prefixes([[3, 4], [5]]).rows(1, 2).item_ids.tolist()
        [[5, 0]]
        """
        tensors = (None if one is None else one[begin:end] for one in self[: self._fields.index("graph")])
        return SessionBatch(*tensors)  # type: ignore[arg-type]

    def columns(self) -> Tensor:
        """Column of each click in the scores, ``(B, L)`` long; padding repeats the first click.

        >>> batch_prefixes([[3, 4], [5]]).columns().tolist()
        [[2, 3], [4, 4]]
        """
        return torch.where(self.item_ids > 0, self.item_ids, self.item_ids[:, :1]) - 1

    def latest_clicks(self) -> Tensor:
        """True at the latest click of each distinct item of a session: ``(B, L)`` bool.

        >>> batch_prefixes([[3, 4, 3], [5]]).latest_clicks().tolist()
        [[False, True, True], [True, False, False]]
        """
        same = self.item_ids.unsqueeze(1) == self.item_ids.unsqueeze(2)  # (B, L, L)
        again = same.triu(1).any(-1)  # the item is clicked again later
        return self.padding_mask() & ~again


class Interests(NamedTuple):
    """Output of a backbone's `encode`: both interests of every session (Eq. 6, arXiv:2402.13840)."""

    long_term: Tensor  # (B, d) global, h_g
    short_term: Tensor  # (B, d) local, h_l
    context: Any = None  # private data of the backbone for its `merge` and `score`
    auxiliary_loss: Tensor | None = None  # scalar, added to the loss in training


INTERESTS = ("long_term", "short_term")  # interests that a view can be paired with


def batch_prefixes(
    prefixes: Sequence[Sequence[int]],
    target: Sequence[int] | None = None,
    example_index: Sequence[int] | None = None,
    *,
    graph: bool = True,
) -> SessionBatch:
    """Build a batch from lists of items.

    Args:
        prefixes: Clicks of each session, items 1..V, oldest first; not empty.
        target: Next items; by default 0 (unknown).
        example_index: Rows in the view table; by default 0.
        graph: Whether to build the batch's graph.

    Shapes:
        - item_ids: ``(B, L)`` with ``L`` the longest prefix

    >>> batch_prefixes([[3, 4], [5]]).item_ids.tolist()
    [[3, 4], [5, 0]]
    """
    rows = [torch.tensor(prefix, dtype=torch.long) for prefix in prefixes]
    item_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    return SessionBatch(
        item_ids,
        lengths,
        torch.zeros_like(lengths) if target is None else torch.tensor(target),
        torch.zeros_like(lengths) if example_index is None else torch.tensor(example_index),
        graph=build_session_graph(item_ids, lengths) if graph else None,
    )


def build_session_graph(item_ids: Tensor, lengths: Tensor) -> SessionGraph:
    """Build the graph of a whole batch without a loop over sessions.

    Each session contributes its distinct items as nodes and its distinct consecutive transitions as edges
    (SR-GNN, arXiv:1811.00855, Sec. 3.2). A repeated click gives a self-loop.

    Args:
        item_ids: Clicks, right-padded with 0.
        lengths: Number of clicks of each session.

    Shapes:
        - item_ids: ``(B, L)`` long, lengths: ``(B,)`` long
        - output: ``nodes (N,)``, ``edge_index (2, M)``, ``alias (B, L)``

    >>> graph = build_session_graph(torch.tensor([[5, 7, 5], [7, 0, 0]]), torch.tensor([3, 1]))
    >>> graph.nodes.tolist(), graph.edge_index.tolist(), graph.alias.tolist()
    ([5, 7, 7], [[0, 1], [1, 0]], [[0, 1, 0], [2, 0, 0]])
    """
    batch_size, width = item_ids.shape
    position = torch.arange(width, device=item_ids.device)
    real = position < lengths.unsqueeze(1)  # (B, L)
    # Numbers of the data stay tensors, and no size depends on them: `torch.export` can follow.
    stride = item_ids.max() + 1 if item_ids.numel() else item_ids.new_ones(())
    session = torch.arange(batch_size, device=item_ids.device).unsqueeze(1)  # (B, 1)
    keys = (session * stride + item_ids)[real]  # (sum of lengths,)
    unique, inverse = torch.unique(keys, return_inverse=True)  # (N,), (sum of lengths,)
    alias = item_ids.new_zeros(item_ids.shape)
    alias[real] = inverse
    step = position + 1 < lengths.unsqueeze(1)  # (B, L): both ends of the transition are real
    span = max(alias.numel(), 1)  # at least N
    edges = torch.unique((alias * span + alias.roll(-1, 1))[step])  # (M,)
    source = edges.div(span, rounding_mode="floor")  # (M,)
    edge_index = torch.stack((source, edges - source * span))
    return SessionGraph(nodes=unique % stride, edge_index=edge_index, alias=alias)
