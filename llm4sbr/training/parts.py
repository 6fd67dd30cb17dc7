"""Choice and checks of a model's parts: backbone, scorer, optimiser."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.scorers import CosineScores, OwnScores, Scorer


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


def optimizer_settings(make: OptimizerCallable) -> dict[str, Any]:
    """Name and numeric settings of an optimiser, for a logger."""
    made = make([nn.Parameter(torch.zeros(1))])
    numbers = {name: value for name, value in made.defaults.items() if isinstance(value, int | float)}
    return {"name": type(made).__name__, **numbers}


def check_backbone(backbone: object) -> None:
    """Check the type of a backbone.

    Raises:
        InputError: If it is not a `SessionBackbone`.
    """
    if not isinstance(backbone, SessionBackbone):
        raise InputError(
            "backbone must be a SessionBackbone",
            value=type(backbone).__name__,
            hint="Subclass llm4sbr.SessionBackbone and implement encode, merge and item_embeddings",
        )
