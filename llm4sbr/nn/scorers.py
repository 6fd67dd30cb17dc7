"""Scorers: compute scores from session vectors and item embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveFloat
from llm4sbr.contracts.rebuildable import Rebuildable
from llm4sbr.nn.functional import unit_rows


class Scorer(Rebuildable, nn.Module):
    """Base class of scorers, which replace the backbone's product of session vector and item embeddings.

    The scores are the product of what `of_sessions` makes of the session vectors and `of_items` of the item
    embeddings; a subclass overrides one or both. Both can then be computed once, and the product in blocks.
    A scorer that is no product overrides `forward`, and works with losses that read all scores.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``
    """

    def of_sessions(self, session: Tensor) -> Tensor:
        """The factor of the session vectors, ``(B, d')``."""
        return session

    def of_items(self, items: Tensor) -> Tensor:
        """The factor of the item embeddings, ``(V, d')``."""
        return items

    def forward(self, session: Tensor, items: Tensor) -> Tensor:
        """Scores of all items.

        Args:
            session: Session vectors.
            items: Item embeddings that the backbone scores with (`SessionBackbone.scored_items`).
        """
        return self.of_sessions(session) @ self.of_items(items).T

    @classmethod
    def is_product(cls) -> bool:
        """Return whether the scores are the product of both factors, so that blocks of it can be computed."""
        return cls.forward is Scorer.forward


class OwnScores(Scorer):
    """The backbone's own scores: a product with its item embeddings, or its own `score`.

    This is the product; a backbone with scores of its own (`SessionBackbone.score`) computes them itself.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``
    """


class CosineScores(Scorer):
    r"""Scaled cosines, ``s_v = γ cos(h, e_v)`` (NISER, arXiv:1909.04276, Eq. 4).

    The length of an item's embedding, which reflects its popularity, then has no effect; this helps items
    with few clicks.

    Args:
        scale: ``γ``, above 0; 10 to 20 is a good start.

    Shapes:
        - session: ``(B, d)``, items: ``(V, d)``
        - output: ``(B, V)``

    >>> import torch
    >>> CosineScores(2.0)(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])).tolist()
    [[2.0, 0.0]]
    """

    def __init__(self, scale: PositiveFloat = 16.0) -> None:
        super().__init__()
        self.scale = scale

    def of_sessions(self, session: Tensor) -> Tensor:
        """Session vectors of length ``γ``."""
        return self.scale * unit_rows(session)

    def of_items(self, items: Tensor) -> Tensor:
        """Items of length 1."""
        return unit_rows(items)


def choose_scorer(backbone: SessionBackbone, scorer: Scorer | None) -> Scorer:
    """Choose the scorer of a model: by default cosines, unless the backbone overrides `score`.

    Raises:
        InputError: If a scorer is given for a backbone that overrides `score`.
    """
    own = backbone.has_own_scores()
    if scorer is None:
        return OwnScores() if own else CosineScores(16.0)
    if own and not isinstance(scorer, OwnScores):
        raise InputError(
            f"{type(backbone).__name__} has scores of its own, so no scorer can replace them",
            value=type(scorer).__name__,
            hint="Leave the scorer out; the backbone's own options set its scale",
        )
    return scorer


SCORERS: tuple[type[Scorer], ...] = (CosineScores, OwnScores)  # those that a checkpoint may name
