"""CORE: a session vector is a weighted mean of the item embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from llm4sbr.backbones.readout import last_click, masked_mean
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.checks import check_heads
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, Rate
from llm4sbr.contracts.rebuildable import Rebuildable
from llm4sbr.nn.dropout import FastDropout
from llm4sbr.nn.functional import unit_rows


@dataclass(frozen=True)
class TransformerSize(Rebuildable):
    """Size of the transformer of CORE-trm; the defaults are the authors' settings.

    Args:
        num_blocks: Number of transformer blocks.
        num_heads: Number of attention heads; it divides the embedding size.
        inner_dim: Width of the feed-forward layers.
        max_length: Number of positions; a longer session is an error.
    """

    num_blocks: PositiveInt = 2
    num_heads: PositiveInt = 2
    inner_dim: PositiveInt = 256
    max_length: PositiveInt = 50


class ClickWeights(nn.Module):
    r"""Weights of a session's clicks from a causal transformer (CORE-trm).

    .. math:: F = Transformer(x_1 + p_1, \dots, x_n + p_n), \quad \alpha = softmax(F w)

    Args:
        dim: ``d``, divisible by the number of heads.
        size: Blocks, heads, widths and positions; each sublayer is followed by a layer norm.
        dropout: Dropout on the input, on attention and on each sublayer's output.

    Shapes:
        - clicks: ``(B, L, d)``, mask: ``(B, L)`` bool, True at real clicks
        - output: ``(B, L)``, 0 at padding, rows sum to 1
    """

    def __init__(self, dim: int, size: TransformerSize, dropout: Rate) -> None:
        super().__init__()
        self.position = nn.Embedding(size.max_length, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = FastDropout(dropout)
        block = nn.TransformerEncoderLayer(
            dim,
            size.num_heads,
            size.inner_dim,
            dropout,
            activation="gelu",
            layer_norm_eps=1e-12,
            batch_first=True,
        )
        block.dropout.p = 0.0  # the authors use none between the two maps of a feed-forward layer
        self.blocks = nn.TransformerEncoder(block, size.num_blocks, enable_nested_tensor=False)
        self.weight = nn.Linear(dim, 1, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        # The bias adds a constant to every click's score; softmax cancels it, so its gradient is 0.
        cast(nn.TransformerEncoderLayer, self.blocks.layers[-1]).norm2.bias.requires_grad_(False)

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        """Compute the weights of the clicks."""
        width = clicks.size(1)
        states = self.dropout(self.norm(clicks + self.position.weight[:width]))
        causal = nn.Transformer.generate_square_subsequent_mask(width, device=clicks.device)
        # Padding follows all real clicks, so the causal mask also hides it from them.
        states = self.blocks(states, mask=causal, is_causal=True)  # (B, L, d)
        scores = cast(Tensor, self.weight(states)).squeeze(-1)  # (B, L)
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)


class CORE(EmbeddingBackbone):
    r"""Session-based recommendation within consistent representation space (Hou et al., arXiv:2204.11067).

    Presented at SIGIR 2022. The representation-consistent encoder computes a session vector as a weighted
    mean of its item embeddings, so that sessions and items share one space. A transformer (CORE-trm) or the
    plain mean (CORE-ave) gives the weights. Robust distance measuring scores items by the cosine divided by
    a temperature, in training with dropout ``'`` on the embeddings of the candidate items:

    .. math:: h_s = \sum_i \alpha_i x_i, \quad \hat y_k = \cos(h_s, x_k') / \tau

    ``h_s`` is the long-term interest and the model's own read-out; the last click's embedding, in the same
    space, is the short-term interest. The paper does not specify the initialisation, the dropout on the
    session's embeddings and the causal mask; they follow the authors' code.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``; divisible by the number of heads.
        encoder: ``"trm"`` or ``"ave"``; the latter ignores `dropout` and `transformer`.
        temperature: ``τ``; this default (0.07) and the next ones are the authors' settings.
        item_dropout: Dropout on the embeddings of the candidate items.
        session_dropout: Dropout on the embeddings of the session's items.
        dropout: Dropout inside the transformer.
        transformer: Blocks, heads, widths and positions of the transformer.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
        - score: cosines over `temperature`, ``(B, V)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        encoder: Literal["trm", "ave"] = "trm",
        temperature: PositiveFloat = 0.07,
        item_dropout: Rate = 0.2,
        session_dropout: Rate = 0.2,
        dropout: Rate = 0.5,
        transformer: TransformerSize = TransformerSize(),
    ) -> None:
        super().__init__(num_items, embedding_dim)
        if encoder not in ("trm", "ave"):
            raise InputError("encoder must be 'trm' or 'ave'", value=encoder)
        self.temperature = temperature
        self.item_dropout = FastDropout(item_dropout)
        self.session_dropout = FastDropout(session_dropout)
        self.init_uniform(self.embedding)
        self.weights: ClickWeights | None = None
        if encoder == "trm":
            check_heads(embedding_dim, num_heads=transformer.num_heads)
            self.max_length = transformer.max_length
            self.weights = ClickWeights(embedding_dim, transformer, dropout)

    def encode(self, batch: SessionBatch) -> Interests:
        """Weighted mean of the clicks' embeddings (long term) and the last click's embedding (short term)."""
        self.check_length(batch)
        clicks = self.session_dropout(self.embedding(batch.item_ids))  # (B, L, d)
        mask = batch.padding_mask()
        if self.weights is None:
            session = masked_mean(clicks, mask)  # (B, d)
        else:
            session = (self.weights(clicks, mask).unsqueeze(-1) * clicks).sum(1)  # (B, d)
        return Interests(long_term=session, short_term=last_click(clicks, batch.lengths))

    def merge(self, interests: Interests) -> Tensor:
        """The weighted mean ``h_s``, ``(B, d)``."""
        return interests.long_term

    def item_embeddings(self) -> Tensor:
        """Normalised item embeddings, ``(V, d)``, without the padding row."""
        return unit_rows(self.embedding.weight[1:])

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Cosines of session and items over `temperature`, ``(B, V)``; in training with item dropout."""
        items = unit_rows(self.item_dropout(self.embedding.weight[1:]))  # (V, d)
        return unit_rows(session) / self.temperature @ items.T
