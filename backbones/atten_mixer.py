"""Atten-Mixer: an attention read-out whose queries are the last clicks at several levels, without a graph."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4sbr.backbones.readout import last_click
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.checks import check_heads
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import NormOrder, PositiveFloat, PositiveInt, Rate
from llm4sbr.nn.dropout import FastDropout
from llm4sbr.nn.functional import unit_rows


class AttenMixer(EmbeddingBackbone):
    r"""Multi-level attention mixture network (Zhang et al., WSDM 2023, arXiv:2206.12781).

    A level-``l`` query is a deep set of the last ``l`` clicks, so their order does not matter (local
    invariance) and later clicks enter more queries (inherent priority). With unit-length clicks ``x``:

    .. math:: q_l = \text{norm}\Big(W_l \sum_{j=0}^{l-1} x_{n-j} + b_l\Big), \quad l = 1 \dots K

    Each query attends to all clicks in several heads; ``L_p`` pooling mixes the maps of all levels:

    .. math::
        a^h_{li} = \text{softmax}_i\, 2 \sigma(Q^h q_l \cdot K^h x_i), \quad
        \gamma^h_i = \text{softmax}_i\, 2 \Big(\sum_l (a^h_{li})^p\Big)^{1/p}

    .. math:: s_g = LN\big([\textstyle\sum_i \gamma^h_i V^h x_i]_h\big), \quad s = W [s_g ; x_n],
        \quad \hat y_v = \tau \cos(s, e_v)

    ``s_g`` is the long-term interest, ``x_n`` the short-term interest. The softmax after the pooling, the
    factors of 2 and the sigmoid follow the authors' code. Their code differs from this model in four ways:
    its queries concatenate the last clicks, so they depend on the order; it normalises queries across
    levels, which reduces a single level to signs; its heads mix positions; its first softmax includes
    padding.

    All parameters are drawn from ``U(-1/sqrt(d), 1/sqrt(d))``, as in the authors' code.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``, divisible by `heads` (authors: 256).
        levels: ``K``, maximum number of last clicks in a query; a shorter session uses all its clicks.
        heads: Attention heads (authors: 8, which does not divide 100).
        power: ``p`` of the pooling, at least 1; infinity selects the largest weight.
        dropout: Dropout on embeddings, attention and, in the scores, item vectors.
        scale: ``tau``, factor of the cosines.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
        - score: cosines times `scale`, ``(B, V)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        levels: PositiveInt = 7,
        heads: PositiveInt = 4,
        power: NormOrder = 4.0,
        dropout: Rate = 0.1,
        scale: PositiveFloat = 16.0,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        check_heads(embedding_dim, heads=heads)
        self.levels, self.heads, self.power, self.scale = levels, heads, power, scale
        self.level_weight = nn.Parameter(torch.empty(levels, embedding_dim, embedding_dim))
        self.level_bias = nn.Parameter(torch.empty(levels, embedding_dim))
        self.query = nn.Linear(embedding_dim, embedding_dim)
        self.key = nn.Linear(embedding_dim, embedding_dim)
        self.value = nn.Linear(embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim, eps=1e-8)
        self.readout = nn.Linear(2 * embedding_dim, embedding_dim)
        self.dropout = FastDropout(dropout)
        self.init_uniform()

    def encode(self, batch: SessionBatch) -> Interests:
        """The mixed attention over the session (long term) and the last click (short term)."""
        clicks = F.normalize(self.dropout(self.embedding(batch.item_ids)), dim=-1)  # (B, L, d)
        weight = self._attention(self._queries(clicks, batch.lengths), clicks, batch.padding_mask())
        mixed = torch.einsum("bhi,bihd->bhd", self.dropout(weight), self._split(self.value(clicks)))
        return Interests(long_term=self.norm(mixed.flatten(1)), short_term=last_click(clicks, batch.lengths))

    def merge(self, interests: Interests) -> Tensor:
        """Linear read-out of both interests, ``(B, d)``."""
        return cast(Tensor, self.readout(torch.cat((interests.long_term, interests.short_term), dim=-1)))

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scaled cosines of session and items, ``(B, V)``."""
        items: Tensor = self.dropout(unit_rows(self.item_embeddings()))  # (V, d)
        return self.scale * F.normalize(session, dim=-1) @ items.T

    def _queries(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        """Deep sets of the last 1..K clicks, ``(B, K, d)``."""
        back = torch.arange(self.levels, device=lengths.device)  # (K,): clicks counted from the last
        position = lengths.unsqueeze(1) - 1 - back  # (B, K): negative before the session's first click
        index = position.clamp(min=0).unsqueeze(-1).expand(-1, -1, clicks.size(-1))
        latest = clicks.gather(1, index) * (position >= 0).unsqueeze(-1)  # (B, K, d), newest first
        sets = latest.cumsum(1)  # (B, K, d): row l - 1 sums the last l clicks
        return F.normalize(torch.einsum("bkd,kde->bke", sets, self.level_weight) + self.level_bias, dim=-1)

    def _attention(self, queries: Tensor, clicks: Tensor, real: Tensor) -> Tensor:
        """Weights of the clicks in each head, ``(B, H, L)``; 0 at padding."""
        padding = ~real[:, None, :]  # (B, 1, L)
        agreement = torch.einsum(
            "bkhd,bihd->bhki", self._split(self.query(queries)), self._split(self.key(clicks))
        )
        maps = torch.softmax(
            (2 * torch.sigmoid(agreement)).masked_fill(padding.unsqueeze(2), float("-inf")), dim=-1
        )  # (B, H, K, L)
        pooled = torch.linalg.vector_norm(maps, ord=self.power, dim=2)  # (B, H, L)
        return torch.softmax((2 * pooled).masked_fill(padding, float("-inf")), dim=-1)

    def _split(self, vectors: Tensor) -> Tensor:
        """Heads: ``(B, n, d)`` -> ``(B, n, H, d / H)``."""
        return vectors.view(*vectors.shape[:-1], self.heads, -1)
