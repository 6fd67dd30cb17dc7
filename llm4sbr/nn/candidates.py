"""Candidates: the items that a prediction may recommend."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llm4sbr.contracts.batch import SessionBatch


class Candidates(nn.Module):
    """Leaves items out of the scores: the session's own clicks, and items that are not allowed.

    Args:
        allowed: True for each item that may be recommended, column ``k - 1`` for item ``k``; None allows all.
        seen: Whether a session's own items may be recommended.

    Shapes:
        - allowed: ``(V,)`` bool
        - scores: ``(B, V)``; batch: `SessionBatch`
        - output: ``(B, V)``, ``-inf`` for an item that is left out

    >>> from llm4sbr.testing import make_batch
    >>> keep = Candidates(torch.tensor([True, True, True, False]), seen=False)
    >>> keep(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), make_batch([[2]])).tolist()
    [[4.0, -inf, 2.0, -inf]]
    """

    allowed: Tensor | None

    def __init__(self, allowed: Tensor | None = None, seen: bool = True) -> None:
        super().__init__()
        self.seen = seen
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, scores: Tensor, batch: SessionBatch) -> Tensor:
        """Mask the scores."""
        if self.allowed is not None:
            scores = scores.masked_fill(~self.allowed.to(scores.device), float("-inf"))
        if not self.seen:
            row, click = torch.nonzero(batch.padding_mask(), as_tuple=True)
            left_out = torch.zeros_like(scores, dtype=torch.bool)
            left_out[row, batch.item_ids[row, click] - 1] = True
            scores = scores.masked_fill(left_out, float("-inf"))
        return scores
