"""SR-GNN: a gated graph network over the session's transitions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.nn import SimpleConv

from llm4sbr.backbones.readout import last_click
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveInt


class GatedSessionConv(nn.Module):
    r"""One propagation step over incoming and outgoing transitions (Eq. 1-5, arXiv:1811.00855).

    .. math:: a_i = [A^{in}_i (H W_{in}) ; A^{out}_i (H W_{out})] + b, \quad h_i' = GRU(a_i, h_i)

    The rows of both adjacency matrices are normalised, so a product with one is the mean over neighbours.

    Args:
        dim: ``d``, hidden size.

    Shapes:
        - hidden: ``(N, d)``, edge_index: ``(2, M)``
        - output: ``(N, d)``
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.incoming = nn.Linear(dim, dim)
        self.outgoing = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.empty(2 * dim))
        self.mean_in = SimpleConv(aggr="mean", flow="source_to_target")
        self.mean_out = SimpleConv(aggr="mean", flow="target_to_source")
        self.cell = nn.GRUCell(2 * dim, dim)

    def forward(self, hidden: Tensor, edge_index: Tensor) -> Tensor:
        """Propagate once."""
        messages = torch.cat(
            (
                self.mean_in(self.incoming(hidden), edge_index),
                self.mean_out(self.outgoing(hidden), edge_index),
            ),
            dim=-1,
        )  # (N, 2d)
        return cast(Tensor, self.cell(messages + self.bias, hidden))


class SRGNN(EmbeddingBackbone):
    r"""Session-based recommendation with graph neural networks (Wu et al., AAAI 2019, arXiv:1811.00855).

    The last click's node is the short-term interest; soft attention over the session's clicks, with the last
    click as the query, is the long-term interest (Eq. 6). The read-out is a linear map of both (Eq. 7):

    .. math:: s_g = \sum_i q^T \sigma(W_1 v_n + W_2 v_i + c)\, v_i, \quad s_h = W_3 [s_g ; v_n]

    The attention weights are not normalised, as in the paper; padding is masked.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        steps: Number of propagation steps.
        readout_bias: Whether the read-out has a bias. The authors' code has one, Eq. 7 has none.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        steps: PositiveInt = 1,
        readout_bias: bool = False,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.conv = GatedSessionConv(embedding_dim)
        self.steps = steps
        self.attend_last = nn.Linear(embedding_dim, embedding_dim)
        self.attend_click = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.attend_score = nn.Linear(embedding_dim, 1, bias=False)
        self.readout = nn.Linear(2 * embedding_dim, embedding_dim, bias=readout_bias)
        self.init_uniform()

    def encode(self, batch: SessionBatch) -> Interests:
        """Soft attention over the session (long term) and the last click's node (short term)."""
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        hidden = self.embedding(graph.nodes)  # (N, d)
        for _ in range(self.steps):
            hidden = self.conv(hidden, graph.edge_index)
        return self.attend(hidden[graph.alias], batch)

    def attend(self, clicks: Tensor, batch: SessionBatch) -> Interests:
        """Both interests of the clicks' states ``(B, L, d)`` (Eq. 6, arXiv:1811.00855)."""
        last = last_click(clicks, batch.lengths)  # (B, d)
        query = self.attend_last(last).unsqueeze(1)  # (B, 1, d)
        weight = self.attend_score(torch.sigmoid(query + self.attend_click(clicks)))  # (B, L, 1)
        weight = weight * batch.padding_mask().unsqueeze(-1)
        return Interests(long_term=(weight * clicks).sum(1), short_term=last)

    def merge(self, interests: Interests) -> Tensor:
        """Linear read-out of both interests, ``(B, d)``."""
        return cast(Tensor, self.readout(torch.cat((interests.long_term, interests.short_term), dim=-1)))
