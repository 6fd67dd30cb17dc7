"""Candidates: the items that a prediction may recommend."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llm4sbr.contracts.batch import SessionBatch


def leave_out(
    scores: Tensor, batch: SessionBatch, allowed: Tensor | None = None, *, seen: bool = True
) -> Tensor:
    """Replace the scores of items that may not be recommended by ``-inf``.

    Args:
        scores: Scores over the catalogue, column ``k - 1`` for item ``k``.
        batch: Sessions.
        allowed: True for each item that may be recommended, for all sessions or for each; None allows all.
        seen: Whether a session's own items may be recommended.

    Shapes:
        - scores: ``(B, V)``; allowed: ``(V,)`` or ``(B, V)`` bool
        - output: ``(B, V)``

    >>> from llm4sbr.testing import make_batch
    >>> allowed = torch.tensor([[True, True, False], [False, True, True]])
    >>> leave_out(torch.tensor([[3.0, 2.0, 1.0]] * 2), make_batch([[2], [2]]), allowed).tolist()
    [[3.0, 2.0, -inf], [-inf, 2.0, 1.0]]
    """
    if allowed is not None:
        scores = scores.masked_fill(~allowed.to(scores.device), float("-inf"))
    if not seen:
        row, click = torch.nonzero(batch.padding_mask(), as_tuple=True)
        left_out = torch.zeros_like(scores, dtype=torch.bool)
        left_out[row, batch.item_ids[row, click] - 1] = True
        scores = scores.masked_fill(left_out, float("-inf"))
    return scores


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
        return leave_out(scores, batch, self.allowed, seen=self.seen)
