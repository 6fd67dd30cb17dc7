"""GC-SAN: self-attention over the states of a gated graph network."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from llm4sbr.backbones.readout import last_click
from llm4sbr.backbones.srgnn import GatedSessionConv
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveInt, Rate, Share


class SelfAttentionBlock(nn.Module):
    r"""One self-attention block: a single head, then a feed-forward layer with a residual connection.

    .. math::
        F = \mathrm{softmax}\Big(\frac{(H W^Q) (H W^K)^T}{\sqrt{d}}\Big) (H W^V), \quad
        E = \mathrm{ReLU}(F W_1 + b_1) W_2 + b_2 + F

    Args:
        dim: ``d``, the hidden size.
        dropout: Dropout on the attention weights and on the feed-forward layer.

    Shapes:
        - queries: ``(B, Q, d)``, states: ``(B, L, d)``, mask: ``(B, L)`` bool, True at real clicks
        - output: ``(B, Q, d)``
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.Dropout(dropout)
        )
        self.dropout = dropout

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Rows of ``E`` for the `queries`, which attend to every real click."""
        attended = functional.scaled_dot_product_attention(
            self.query(queries).unsqueeze(1),  # (B, 1, Q, d): one head, which ONNX's operator wants
            self.key(states).unsqueeze(1),
            self.value(states).unsqueeze(1),
            attn_mask=mask[:, None, None],  # (B, 1, 1, L): padding is masked; every session has a real click
            dropout_p=self.dropout if self.training else 0.0,
        ).squeeze(1)  # (B, Q, d)
        return cast(Tensor, self.feed_forward(attended) + attended)


class GCSAN(EmbeddingBackbone):
    r"""Graph contextualized self-attention network for session-based recommendation (Xu et al., IJCAI 2019).

    SR-GNN's gated graph layer reads the transitions; ``k`` self-attention blocks read the whole session. The
    last click's node is the short-term interest, the last position of the last block the long-term interest:

    .. math::
        H = \mathrm{GGNN}(s), \quad E^{(k)} = \mathrm{SAN}(E^{(k-1)}), \; E^{(0)} = H, \quad
        S = \omega E^{(k)}_n + (1 - \omega) H_n

    Attention is bidirectional and has no position embeddings, as in the paper's equations; padding is
    masked. The graph layer and the initialisation (uniform within :math:`1 / \sqrt{d}`) are SR-GNN's.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        steps: Number of propagation steps of the graph layer.
        num_blocks: ``k``, number of self-attention blocks.
        weight: ``ω``, weight of the self-attention; the paper advises 0.4 to 0.8.
        dropout: Dropout on attention weights and feed-forward layers.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        steps: PositiveInt = 1,
        num_blocks: PositiveInt = 1,
        weight: Share = 0.6,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.steps = steps
        self.weight = weight
        self.conv = GatedSessionConv(embedding_dim)
        self.blocks = nn.ModuleList(SelfAttentionBlock(embedding_dim, dropout) for _ in range(num_blocks))
        self.init_uniform()

    def encode(self, batch: SessionBatch) -> Interests:
        """The last position of the self-attention (long term) and the last click's node (short term)."""
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        hidden = self.embedding(graph.nodes)  # (N, d)
        for _ in range(self.steps):
            hidden = self.conv(hidden, graph.edge_index)
        clicks = hidden[graph.alias]  # (B, L, d)
        states, mask = clicks, batch.padding_mask()
        for block in self.blocks[:-1]:
            states = block(states, states, mask)
        # Only the last position of the last block's output is used.
        last = last_click(states, batch.lengths).unsqueeze(1)  # (B, 1, d)
        return Interests(
            long_term=self.blocks[-1](last, states, mask).squeeze(1),
            short_term=last_click(clicks, batch.lengths),
        )

    def merge(self, interests: Interests) -> Tensor:
        """Weighted sum of both interests, ``(B, d)``."""
        return self.weight * interests.long_term + (1 - self.weight) * interests.short_term
