"""FullSoftmax: cross-entropy over the whole catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.ranges import Rate
from llm4sbr.nn.functional import smoothed_cross_entropy
from llm4sbr.nn.losses.recommendation_loss import RecommendationLoss

if TYPE_CHECKING:
    from llm4sbr.nn.scoring import Scoring

_LARGE = (
    1 << 12
)  # items; with fewer, passes over the scores take no time, and kept numbers keep their last bits


class FullSoftmax(RecommendationLoss):
    """Cross-entropy over the whole catalogue, `catalogue_cross_entropy` (Eq. 14, arXiv:2402.13840).

    Args:
        smoothing: Label smoothing, the share of the target's probability spread evenly over the catalogue, in
            [0, 1).

    Shapes:
        - scores: ``(B, V)``, target: ``(B,)`` long
        - output: scalar
    """

    def __init__(self, smoothing: Rate = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, averaged over the batch."""
        return catalogue_cross_entropy(scores, target, self.smoothing)

    def of_sessions(
        self, model: Scoring, session: Tensor, interests: Interests, batch: SessionBatch
    ) -> Tensor:
        """Cross-entropy of the sessions; the last head may compute it from the scores before it."""
        scores, heads = model.score(session, interests), model.score_heads(training=True)
        plain = type(self).forward is FullSoftmax.forward
        for place, head in enumerate(heads):
            if plain and place == len(heads) - 1 and scores.size(1) >= _LARGE:
                found = head.cross_entropy(scores, session, batch, self.smoothing)
                if found is not None:
                    return found
            scores = head(scores, session, batch)
        loss: Tensor = self(scores, batch.target)
        return loss


def catalogue_cross_entropy(scores: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the next item over the whole catalogue (Eq. 14, arXiv:2402.13840).

    The paper prints a binary cross-entropy per column but calls it cross-entropy; this is cross-entropy.

    Args:
        scores: Scores; column ``k - 1`` is item ``k``.
        target: Next items, 1..V.
        label_smoothing: Share of the target's probability that is spread evenly over the catalogue.

    Shapes:
        - scores: ``(B, V)``, target: ``(B,)`` long
        - output: scalar

    >>> round(catalogue_cross_entropy(torch.zeros(1, 4), torch.tensor([4])).item(), 4)  # log 4
    1.3863
    """
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    return smoothed_cross_entropy(scores, target - 1, label_smoothing)
