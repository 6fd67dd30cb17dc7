"""SASRec: causal self-attention over the clicks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from llm4sbr.backbones.sequence import SequenceBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.checks import check_heads
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.dropout import FastDropout


class SASRec(SequenceBackbone):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018, arXiv:1808.09781).

    The model has learned positions, causal self-attention blocks and a final layer norm. The last position is
    the short-term interest and the model's own read-out; the mean over positions is the long-term interest.
    Positions count from the session's first kept click.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``, divisible by ``num_heads``.
        num_blocks: Number of attention blocks.
        num_heads: Number of attention heads.
        dropout: Dropout on embeddings, attention and feed-forward layers.
        max_length: Longest session; a longer batch is an error.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        num_blocks: PositiveInt = 2,
        num_heads: PositiveInt = 2,
        dropout: Rate = 0.2,
        max_length: PositiveInt = 50,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        check_heads(embedding_dim, num_heads=num_heads)
        self.max_length = max_length
        self.position = nn.Embedding(max_length, embedding_dim)
        self.dropout = FastDropout(dropout)
        block = nn.TransformerEncoderLayer(
            embedding_dim, num_heads, embedding_dim, dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, num_blocks, norm=nn.LayerNorm(embedding_dim), enable_nested_tensor=False
        )
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)
        self.zero_padding()

    def states(self, batch: SessionBatch) -> Tensor:
        """Normalised outputs of the last block, ``(B, L, d)``."""
        self.check_length(batch)
        width = batch.item_ids.size(1)
        positions = torch.arange(width, device=batch.item_ids.device)
        embedded = self.embedding(batch.item_ids) * self.embedding_dim**0.5 + self.position(positions)
        causal = nn.Transformer.generate_square_subsequent_mask(width, device=batch.item_ids.device)
        # Padding follows all real clicks, so the causal mask also hides it from them.
        return cast(Tensor, self.blocks(self.dropout(embedded), mask=causal, is_causal=True))
