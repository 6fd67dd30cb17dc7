"""Small read-outs that several backbones share. They ignore padding."""

from __future__ import annotations

from torch import Tensor


def last_click(sequence: Tensor, lengths: Tensor) -> Tensor:
    """State at each session's last real click.

    Shapes:
        - sequence: ``(B, L, d)``, lengths: ``(B,)``
        - output: ``(B, d)``
    """
    index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, sequence.size(-1))  # (B, 1, d)
    return sequence.gather(1, index).squeeze(1)


def masked_mean(sequence: Tensor, mask: Tensor) -> Tensor:
    """Mean over real clicks.

    Shapes:
        - sequence: ``(B, L, d)``, mask: ``(B, L)`` bool, True at real clicks
        - output: ``(B, d)``
    """
    weights = mask.unsqueeze(-1).to(sequence.dtype)  # (B, L, 1)
    return (sequence * weights).sum(1) / weights.sum(1).clamp(min=1)
