"""RepeatExplore: separates whether the next click repeats an item from which item it is."""

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
from llm4sbr.nn.shared_cross_entropy import shared_cross_entropy


class RepeatExplore(ScoreHead):
    r"""Models the probability of a repeat separately from the ranking of clicked and of new items.

    A session vector is near the embeddings of its own items, so a product with the item embeddings ranks
    these items first, even in data without repeated clicks. RepeatNet (Ren et al. 2019, arXiv:1812.02646)
    first predicts whether the next click repeats (``r``) or explores (``e``),

    .. math:: P(v | s) = P(r | s) P(v | r, s) + P(e | s) P(v | e, s),

    and decodes each mode with a separate network. Here the model's own scores decode both: one softmax over
    the session's items and one over all other items. This equals the model's softmax with one number added
    to the scores of the session's items ``C``,

    .. math:: s'_v = s_v + [v \in C] \Big( l(s) + \log \sum_{u \notin C} e^{s_u}
        - \log \sum_{u \in C} e^{s_u} \Big), \quad l(s) = \log \frac{\pi}{1 - \pi} + w^T h_s + b

    with ``h_s`` the session vector and ``P(r | s)`` the sigmoid of ``l(s)``. ``P(r | s)`` starts at ``π``,
    the share of training examples whose target is in the prefix (1/2 without training examples); ``w`` and
    ``b`` are learned. The order among the session's items and the order among all other items do not change.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; session: ``(B, d)``; batch: `SessionBatch`
        - output: ``(B, V)`` float32
    """

    reads_views = False
    prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(1))  # log-odds of π, saved in the checkpoint

    def attach(self, backbone: SessionBackbone) -> None:
        """Create ``w`` and ``b``, both zero: the probability starts at ``π`` for every session."""
        self.gate = nn.Linear(backbone.embedding_dim, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def read_training_sessions(self, examples: Examples) -> None:
        """Estimate ``π``; half an example is added to both counts, so that neither probability is zero."""
        # An item and a position make one number, so that a search finds an item's last click before an end.
        clicks, length = examples.clicks.astype(np.int64), len(examples.clicks) + 1
        places = np.sort(clicks * length + np.arange(length - 1))
        target = examples.target.astype(np.int64) * length
        latest = np.searchsorted(places, target + examples.end) - 1  # -1: before all, with an item too large
        again = int(((latest >= 0) & (places[latest] >= target + examples.start)).sum())
        self.prior.fill_(math.log((again + 0.5) / (len(examples) - again + 0.5)))

    def log_odds(self, session: Tensor) -> Tensor:
        """``l(s)``, ``(B, 1)`` float32."""
        learned: Tensor = self.gate(session)
        return learned.float() + self.prior

    def cross_entropy(self, scores: Tensor, session: Tensor, batch: SessionBatch, smoothing: float) -> Tensor:
        """Cross-entropy of the shifted scores, without computing them."""
        columns, counted = batch.columns(), batch.latest_clicks()
        target = batch.target - 1
        return shared_cross_entropy(
            scores.float(), columns, counted, self.log_odds(session), target, smoothing
        )

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Shift the scores of the session's items to their probability."""
        return set_share(scores.float(), batch.columns(), batch.latest_clicks(), self.log_odds(session))
