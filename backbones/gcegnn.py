"""GCE-GNN: graph attention over the session's transitions and over those of all training sessions."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from llm4sbr.backbones.position_attention import ReversedPositionAttention, find_clicks
from llm4sbr.backbones.training_graph import GlobalGraph
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import PositiveInt, Rate


class SessionGraphAttention(nn.Module):
    r"""Attention over the session graph, one weight vector per type of edge (Sec. 4.2, arXiv:2106.05081).

    .. math:: h^s_i = \sum_{j \in N_i} \alpha_{ij} h_j, \quad
        \alpha_{ij} = softmax_j(LeakyReLU(a_{r_{ij}}^T (h_i \odot h_j)))

    Type :math:`r_{ij}` is *out* if the session has only the transition from i to j, *in* if it has only the
    one from j to i, *in-out* if it has both, and *self* from every node to itself.

    Args:
        dim: ``d``.

    Shapes:
        - hidden: ``(N, d)``, edge_index: ``(2, M)``
        - output: ``(N, d)``
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.types = nn.Linear(dim, 4, bias=False)  # out, in, in-out, self

    def forward(self, hidden: Tensor, edge_index: Tensor) -> Tensor:
        """Attend once."""
        size = len(hidden)
        # An immediately repeated click is a self-loop, which every node has anyway.
        source, target = edge_index[:, edge_index[0] != edge_index[1]]
        both = torch.cat((source * size + target, target * size + source))
        pair, where = torch.unique(both, return_inverse=True)  # (E,): centre * size + neighbour
        found = torch.ones_like(both)
        found[len(source) :] = 2
        kind = scatter(found, where, dim_size=len(pair), reduce="sum") - 1  # 1, 2 or 1 + 2 -> 0, 1, 2
        nodes = torch.arange(size, device=pair.device)
        centre = torch.cat((pair // size, nodes))  # (E + N,)
        neighbour = torch.cat((pair % size, nodes))
        kind = torch.cat((kind, torch.full_like(nodes, 3)))
        states = F.embedding(neighbour, hidden)  # (E + N, d)
        every = self.types(F.embedding(centre, hidden) * states)  # (E + N, 4)
        score = F.leaky_relu(every.gather(1, kind.unsqueeze(1)), 0.2)  # (E + N, 1)
        weight = softmax(score, centre, num_nodes=size)
        return cast(Tensor, scatter(weight * states, centre, dim_size=size, reduce="sum"))


class GlobalAggregator(nn.Module):
    r"""One hop over the global graph, with session-aware attention (Sec. 4.1, arXiv:2106.05081).

    .. math:: \pi_{ij} = softmax_j(q_1^T LeakyReLU(W_1 [(s \odot h_j) ; w_{ij}])), \quad
        h^g_i = ReLU(W_2 [h_i ; \sum_j \pi_{ij} h_j])

    Args:
        dim: ``d``.

    Shapes:
        - hidden: ``(P, d)``, states of items in sessions; session: ``(P, d)``, ``s`` for each state
        - own: ``(P',)``, neighbours: ``(P', N)``, rows of `hidden`; weights: ``(P', N)``, 0 if no neighbour
        - output: ``(P', d)``
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.relate = nn.Linear(dim + 1, dim + 1, bias=False)
        self.score = nn.Linear(dim + 1, 1, bias=False)
        self.combine = nn.Linear(2 * dim, dim, bias=False)

    def forward(
        self, hidden: Tensor, session: Tensor, own: Tensor, neighbours: Tensor, weights: Tensor
    ) -> Tensor:
        """Aggregate once."""
        by_state, by_weight = self.relate.weight[:, :-1], self.relate.weight[:, -1:].T
        related = F.linear(session * hidden, by_state)  # (P, d + 1): once per shared neighbour
        # A product, because its gradient is also a product and needs no further (P' N, d + 1) tensor.
        edges = torch.addmm(F.embedding(neighbours.flatten(), related), weights.view(-1, 1), by_weight)
        score = self.score(F.leaky_relu(edges, 0.2)).view_as(weights)  # (P', N)
        # An item without neighbours attends to the padding row, which is zero after each hop.
        share = score.masked_fill(weights == 0, torch.finfo(score.dtype).min).softmax(-1)  # (P', N)
        around = (share.unsqueeze(1) @ F.embedding(neighbours, hidden)).squeeze(1)  # (P', d)
        return torch.relu(self.combine(torch.cat((F.embedding(own, hidden), around), dim=-1)))


class GCEGNN(EmbeddingBackbone):
    r"""Global context enhanced graph neural networks (Wang et al., SIGIR 2020, arXiv:2106.05081).

    Item states aggregate neighbours in all training sessions (`GlobalAggregator`, once per hop) and in the
    current session (`SessionGraphAttention`). Both are added and read out (`ReversedPositionAttention`):

    .. math:: h'_i = dropout(h^{g,(k)}_i) + h^s_i, \quad \hat y = softmax(S^T V)

    The read-out ``S`` is the long-term interest, the last click's :math:`h'` the short-term interest. The
    paper's session vector is ``S`` alone, so `merge` returns the long-term interest.

    One departure from the authors' code follows the paper: an item with fewer than ``N`` neighbours attends
    to its actual neighbours (their code repeats some at random).

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        hops: ``k``, number of hops on the global graph; the paper tries 1 and 2.
        window: ε, maximum number of steps between neighbours in a training session.
        num_neighbours: ``N``, maximum number of neighbours of an item.
        dropout: Dropout on the global states.
        max_length: Number of positions, the length of the longest session; 200 in the authors' code.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        hops: PositiveInt = 1,
        window: PositiveInt = 3,
        num_neighbours: PositiveInt = 12,
        dropout: Rate = 0.5,
        max_length: PositiveInt = 200,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.max_length = max_length
        self.global_graph = GlobalGraph(num_items, window, num_neighbours)
        self.hops = nn.ModuleList(GlobalAggregator(embedding_dim) for _ in range(hops))
        self.session_attention = SessionGraphAttention(embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.readout = ReversedPositionAttention(embedding_dim, max_length)
        self.init_uniform()  # as in the authors' code
        self.readout.begin_positive()

    def read_training_sessions(self, examples: Examples) -> None:
        """Build the global graph of the training sessions."""
        self.global_graph.read(examples)

    def encode(self, batch: SessionBatch) -> Interests:
        """Attention over the session (long term) and the last click's state (short term)."""
        self.global_graph.check_known()
        self.check_length(batch)
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        where = find_clicks(batch)
        node = graph.alias[where.mask]  # (T,)
        session = torch.zeros_like(graph.nodes).scatter(0, node, where.session)  # (N,)
        items = self.embedding(graph.nodes)  # (N, d)
        embedded = F.embedding(node, items)  # (T, d)
        context = scatter(embedded, where.session, dim_size=len(where.last), reduce="mean")  # (B, d): s
        globally = self.dropout(self.aggregate(graph.nodes, session, context))  # (N, d)
        states = globally + self.session_attention(items, graph.edge_index)
        clicks = F.embedding(node, states)  # (T, d)
        return Interests(long_term=self.readout(clicks, where), short_term=clicks[where.last])

    def aggregate(self, nodes: Tensor, session: Tensor, context: Tensor) -> Tensor:
        """Global states of items, each conditioned on its session.

        Shapes:
            - nodes: ``(N,)`` items, session: ``(N,)`` rows of `context`, context: ``(B, d)``
            - output: ``(N, d)``
        """
        stride = self.num_items + 1
        # A state depends on item and session; many edges share a state, which is computed once.
        pairs = session * stride + nodes  # (P0,)
        reached = []
        for _ in self.hops:
            item = pairs % stride
            neighbours = self.global_graph.neighbours[item]  # (P, N)
            found = (pairs - item).unsqueeze(1) + neighbours
            size = len(pairs)
            pairs, index = torch.unique(torch.cat((pairs, found.flatten())), return_inverse=True)
            reached.append((index[:size], index[size:].view_as(found), self.global_graph.weights[item]))
        hidden = self.embedding(pairs % stride)  # (P, d)
        seen_by = F.embedding(pairs // stride, context)
        for hop, (own, around, weights) in zip(self.hops, reversed(reached), strict=True):
            hidden = hop(hidden, seen_by, own, around, weights)
            seen_by = seen_by[own]
        return cast(Tensor, hidden)

    def merge(self, interests: Interests) -> Tensor:
        """The attentive read-out, equal to the long-term interest, ``(B, d)``."""
        return interests.long_term
