"""SHARE: hypergraph attention with the session's sliding windows as hyperedges."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from llm4sbr.backbones.readout import last_click
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, Rate


class WindowHypergraph(NamedTuple):
    """All sessions of a batch as one disconnected hypergraph, in the order of the batch's graph nodes."""

    node: Tensor  # (P,) long: node of each distinct pair of a node and a hyperedge
    edge: Tensor  # (P,) long: hyperedge of each pair, 0..num_edges-1
    num_edges: int  # number of windows of all sizes


def build_window_hypergraph(alias: Tensor, lengths: Tensor, max_window: int) -> WindowHypergraph:
    """Build one hyperedge per window of 1..`max_window` consecutive clicks.

    An item clicked twice within a window occurs in it once; two windows of the same items are two hyperedges.

    Args:
        alias: Node of each click, as in `SessionGraph`.
        lengths: Number of clicks of each session.
        max_window: Number of clicks of the widest window.

    Shapes:
        - alias: ``(B, L)`` long, lengths: ``(B,)`` long
        - output: ``node (P,)``, ``edge (P,)``

    >>> graph = build_window_hypergraph(torch.tensor([[0, 1, 0], [2, 0, 0]]), torch.tensor([3, 1]), 2)
    >>> list(zip(graph.edge.tolist(), graph.node.tolist()))
    [(0, 0), (1, 1), (2, 0), (3, 2), (4, 0), (4, 1), (5, 0), (5, 1)]
    """
    start = torch.arange(alias.size(1), device=alias.device)  # (L,)
    stride = int(alias.max()) + 1
    keys, num_edges = [], 0
    for size in range(1, min(max_window, alias.size(1)) + 1):
        row, first = (start + size <= lengths.unsqueeze(1)).nonzero().unbind(1)  # windows of this size
        edge = num_edges + torch.arange(len(row), device=alias.device)
        num_edges += len(row)
        keys += [edge * stride + alias[row, first + offset] for offset in range(size)]
    pairs = torch.unique(torch.cat(keys))  # (P,)
    return WindowHypergraph(pairs % stride, pairs.div(stride, rounding_mode="floor"), num_edges)


class HypergraphAttention(nn.Module):
    r"""One layer of attention from nodes to hyperedges and back (Eq. 1-3 of the paper).

    .. math::
        e_j = \sum_{t \in j} \text{softmax}_t\big(S(\hat W_1 n_t, u)\big)\, W_1 n_t, \quad
        n_t' = \sum_{j \ni t} \text{softmax}_j\big(S(\hat W_2 e_j, W_3 n_t)\big)\, W_2 e_j

    with ``S(a, b) = a^T b / sqrt(d)``.

    Args:
        dim: ``d``.
        dropout: Dropout on both attentions.

    Shapes:
        - nodes: ``(N, d)``, hypergraph: ``P`` pairs
        - output: ``(N, d)``
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.node_value = nn.Linear(dim, dim, bias=False)
        self.node_key = nn.Linear(dim, dim, bias=False)
        self.context = nn.Parameter(torch.empty(dim))
        self.edge_value = nn.Linear(dim, dim, bias=False)
        self.edge_key = nn.Linear(dim, dim, bias=False)
        self.node_query = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.temperature = math.sqrt(dim)

    def forward(self, nodes: Tensor, hypergraph: WindowHypergraph) -> Tensor:
        """Propagate from nodes to hyperedges and back to nodes."""
        node, edge, num_edges = hypergraph
        fit = self.node_key(nodes) @ self.context / self.temperature  # (N,)
        weight = self.dropout(softmax(fit[node], edge, num_nodes=num_edges))  # (P,)
        message = weight.unsqueeze(-1) * self.node_value(nodes)[node]  # (P, d)
        edges = scatter(message, edge, dim_size=num_edges, reduce="sum")  # (E, d)
        fit = (self.edge_key(edges)[edge] * self.node_query(nodes)[node]).sum(-1) / self.temperature  # (P,)
        weight = self.dropout(softmax(fit, node, num_nodes=len(nodes)))  # (P,)
        message = weight.unsqueeze(-1) * self.edge_value(edges)[edge]  # (P, d)
        return cast(Tensor, scatter(message, node, dim_size=len(nodes), reduce="sum"))


class SHARE(EmbeddingBackbone):
    r"""Session-based recommendation with hypergraph attention (Wang et al., SDM 2021, arXiv:2112.14266).

    Every window of consecutive clicks, of several sizes, is a hyperedge over the session's distinct items.
    Layers of `HypergraphAttention` contextualise the items; each layer adds the items' own embedding:

    .. math:: n^{(l)} = HGAT^{(l)}(n^{(l-1)}) + n^{(0)}

    Attention over all clicks, with the last click as the query (Eq. 4-5), gives the long-term interest; the
    last click's node is the short-term interest, and a feed-forward block reads out both:

    .. math::
        h = \sum_i \text{softmax}_i\big(S(W_Q n_t, W_K n_i)\big)\, W_V n_i, \quad
        x = h + n_t, \quad s = LN(x + FFN(LN(x)))

    The attentions follow the paper's equations; the authors' code omits some matrices (``W_2`` is absent,
    ``W_3`` equals ``\hat W_1``, the first layer has no ``W_1``). The equations do not specify the windows of
    a single click (without them a one-click session has no hyperedge), the added embedding, dropout and the
    feed-forward block; these follow the authors' code. Their read-out also normalises the query (a LayerNorm
    before ``W_Q``) and multiplies the attended vector by one more matrix; the equations and this model have
    neither.

    All parameters are drawn from ``U(-1/sqrt(d), 1/sqrt(d))``, as in the authors' code.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        layers: ``L``, number of attention layers.
        max_window: ``W``, number of clicks of the widest window, at least 2 (2 in the authors' script).
        dropout: Dropout on attention, after each layer and in the read-out.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        layers: PositiveInt = 2,
        max_window: PositiveInt = 2,
        dropout: Rate = 0.3,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        if max_window < 2:
            raise InputError(
                "max_window must be at least 2",
                value=max_window,
                hint="Windows of one click connect no items",
            )
        self.max_window = max_window
        self.layers = nn.ModuleList(HypergraphAttention(embedding_dim, dropout) for _ in range(layers))
        self.query = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.key = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.value = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(embedding_dim, eps=1e-6),
            nn.Linear(embedding_dim, embedding_dim),
            nn.ReLU(),
            nn.Linear(embedding_dim, embedding_dim),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(embedding_dim, eps=1e-6)
        self.init_uniform()

    def encode(self, batch: SessionBatch) -> Interests:
        """Attention with the last click as the query (long term) and the last click (short term)."""
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        hypergraph = build_window_hypergraph(graph.alias, batch.lengths, self.max_window)
        items = self.embedding(graph.nodes)  # (N, d)
        nodes = items
        for layer in self.layers:
            nodes = self.dropout(layer(nodes, hypergraph)) + items
        clicks = nodes[graph.alias]  # (B, L, d)
        last = last_click(clicks, batch.lengths)  # (B, d)
        fit = torch.einsum("bd,bid->bi", self.query(last), self.key(clicks)) / math.sqrt(self.embedding_dim)
        weight = torch.softmax(fit.masked_fill(~batch.padding_mask(), float("-inf")), dim=-1)  # (B, L)
        general = torch.einsum("bi,bid->bd", self.dropout(weight), self.value(clicks))
        return Interests(long_term=self.dropout(general), short_term=last)

    def merge(self, interests: Interests) -> Tensor:
        """Both interests through the feed-forward block, ``(B, d)``."""
        both = interests.long_term + interests.short_term
        return cast(Tensor, self.norm(both + self.feed_forward(both)))
