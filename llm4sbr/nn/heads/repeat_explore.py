"""Whether the next click repeats one of the session, told apart from which item it is."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.nn.functional import set_share
from llm4sbr.nn.heads.score_head import ScoreHead


class RepeatExplore(ScoreHead):
    r"""Splits a model's probabilities into those of clicked and those of new items.

    A session's vector is near the items it was made of, so a product with the item embeddings ranks those
    first, whether or not anybody clicks twice. RepeatNet (Ren et al. 2019, arXiv:1812.02646)
    asks first whether the next click repeats (``r``) or explores (``e``),

    .. math:: P(v | s) = P(r | s) P(v | r, s) + P(e | s) P(v | e, s),

    and decodes each with a network of its own. Here both are decoded by the model's own scores: a softmax
    over the session's items, and one over all others. This is the model's softmax with one number added to
    the scores of the session's items ``C``,

    .. math:: s'_v = s_v + [v \in C] \Big( l(s) + \log \sum_{u \notin C} e^{s_u}
        - \log \sum_{u \in C} e^{s_u} \Big), \quad l(s) = \log \frac{\pi}{1 - \pi} + w^T h_s + b

    with ``h_s`` the session vector and ``P(r | s)`` the sigmoid of ``l(s)``. It begins at ``π``, the share of
    training examples whose target was clicked before (a half if none are shown to it), and learns ``w`` and
    ``b``. Neither order changes: that among the session's items, or that among the others.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; session: ``(B, d)``; batch: `SessionBatch`
        - output: ``(B, V)`` float32
    """

    prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(1))  # log-odds of π; in the checkpoint

    def attach(self, backbone: SessionBackbone) -> None:
        """Make ``w`` and ``b``, both zero: the head begins at ``π`` for every session."""
        self.gate = nn.Linear(backbone.embedding_dim, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def read_training_sessions(self, examples: Examples) -> None:
        """Count ``π``, half an example added to either side so that nothing is held impossible."""
        again = sum(
            bool(np.any(examples.clicks[start:end] == target))
            for start, end, target in zip(examples.start, examples.end, examples.target, strict=True)
        )
        self.prior.fill_(math.log((again + 0.5) / (len(examples) - again + 0.5)))

    def log_odds(self, session: Tensor) -> Tensor:
        """``l(s)``, ``(B, 1)`` float32."""
        learned: Tensor = self.gate(session)
        return learned.float() + self.prior

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """The scores with both kinds of items in their places."""
        items = batch.item_ids  # (B, L)
        columns = torch.where(items > 0, items, items[:, :1]) - 1  # padding stands on the first click
        return set_share(scores.float(), columns, batch.latest_clicks(), self.log_odds(session))
