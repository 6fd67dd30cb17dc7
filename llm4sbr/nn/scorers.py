"""Scorers: how a session vector meets the items' embeddings."""

from __future__ import annotations

import math

from torch import Tensor, nn

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.rebuildable import Rebuildable
from llm4sbr.nn.functional import unit_rows


class Scorer(Rebuildable, nn.Module):
    """Scores items for a session in place of the backbone's product of both.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``
    """

    def forward(self, session: Tensor, items: Tensor) -> Tensor:
        """Scores of all items.

        Args:
            session: The session vectors.
            items: The embeddings that the backbone scores with (`SessionBackbone.scored_items`).
        """
        raise NotImplementedError


class OwnScores(Scorer):
    """The backbone's own scores: a product with its item embeddings, or what it has in its place.

    This is the product; a backbone with scores of its own (`SessionBackbone.score`) computes them itself.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``
    """

    def forward(self, session: Tensor, items: Tensor) -> Tensor:
        """The product, as `SessionBackbone.score` has it by default."""
        return session @ items.T


class CosineScores(Scorer):
    r"""Scaled cosines, ``s_v = γ cos(h, e_v)`` (NISER, arXiv:1909.04276, Eq. 4).

    An item's length then says nothing of its popularity, which helps items with few clicks.

    Args:
        scale: ``γ``, above 0; 10 to 20 for a start.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``

    >>> import torch
    >>> CosineScores(2.0)(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])).tolist()
    [[2.0, 0.0]]
    """

    def __init__(self, scale: float = 16.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise InputError("the scale of cosine scores is a number above 0", value=scale)
        self.scale = scale

    def forward(self, session: Tensor, items: Tensor) -> Tensor:
        """Scaled cosines of sessions and items."""
        return self.scale * unit_rows(session) @ unit_rows(items).T
