"""STAMP: attention over the clicks, with priority to the last one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llm4sbr.backbones.readout import last_click, masked_mean
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveInt


class STAMP(EmbeddingBackbone):
    r"""Short-term attention/memory priority model for session-based recommendation (Liu et al., KDD 2018).

    Attention over the clicks' embeddings, with the last click ``x_t`` and the session's mean ``m_s`` as the
    query, is the general interest; the last click is the current interest. Each passes its own layer:

    .. math::
        \alpha_i = W_0 \sigma(W_1 x_i + W_2 x_t + W_3 m_s + b_a), \quad m_a = \sum_i \alpha_i x_i

        h_s = \tanh(W_s m_a + b_s), \quad h_t = \tanh(W_t x_t + b_t)

    Items are scored by the trilinear product of both and the item's embedding, ``<h_s, h_t, x_i>``, that is
    ``(h_s * h_t) x_i``. The attention weights are not normalised, as in the paper; padding is masked.

    The paper bounds the product by a sigmoid before its softmax. The sigmoid changes no rank and prevents a
    cross-entropy over many items from falling, so it is omitted, as in the authors' code. Their code has
    no biases and adds ``m_s`` to ``m_a``; without `add_mean` this model follows the paper in both points.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``, size of items and of both hidden layers (100 in the paper).
        add_mean: Whether the general interest is ``h_s = tanh(W_s (m_a + m_s) + b_s)``, as in the authors'
            code.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    def __init__(
        self, num_items: PositiveInt, embedding_dim: PositiveInt = 100, add_mean: bool = False
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.add_mean = add_mean
        self.attend_click = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.attend_last = nn.Linear(embedding_dim, embedding_dim)
        self.attend_mean = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.attend_score = nn.Linear(embedding_dim, 1, bias=False)
        self.general = nn.Linear(embedding_dim, embedding_dim)
        self.current = nn.Linear(embedding_dim, embedding_dim)
        # The paper's initialisation: N(0, 0.05^2) for weights, N(0, 0.002^2) for items.
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.002 if parameter is self.embedding.weight else 0.05)
        self.zero_padding()

    def encode(self, batch: SessionBatch) -> Interests:
        """``h_s`` of the attended session (long term) and ``h_t`` of the last click (short term)."""
        mask = batch.padding_mask()
        clicks = self.embedding(batch.item_ids)  # (B, L, d)
        last = last_click(clicks, batch.lengths)  # (B, d)
        mean = masked_mean(clicks, mask)  # (B, d)
        query = self.attend_last(last) + self.attend_mean(mean)  # (B, d)
        weight = self.attend_score(torch.sigmoid(query.unsqueeze(1) + self.attend_click(clicks)))  # (B, L, 1)
        attended = (weight * mask.unsqueeze(-1) * clicks).sum(1)  # (B, d)
        if self.add_mean:
            attended = attended + mean
        return Interests(
            long_term=torch.tanh(self.general(attended)), short_term=torch.tanh(self.current(last))
        )

    def merge(self, interests: Interests) -> Tensor:
        """``h_s * h_t``, ``(B, d)``; its product with an item's embedding is the trilinear product."""
        return interests.long_term * interests.short_term
