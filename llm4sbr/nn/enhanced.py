"""What a wrapped model computes of a batch before it scores the items."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from llm4sbr.contracts.batch import Interests, SessionBatch


class ViewTable(Protocol):
    """Looks up the views of a batch; the view cache provides one (see `llm4sbr.views.tables`)."""

    def __call__(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Views ``(B, K, d_t)`` and their mask ``(B, K)``."""
        ...


class Prediction(NamedTuple):
    """Predicted views of every session, beside those that they should equal."""

    views: Tensor  # (B, K, d_t)
    known: Tensor | None  # (B, K, d_t) known views; None for a batch without any
    replaced: Tensor  # (B, K) bool: which views the fusion and the heads read as predicted


class Enhanced(NamedTuple):
    """Interests, projected views and the fused vector of every session."""

    session: Tensor  # (B, d) fused vector
    gates: Tensor | None  # (B, K); None where the fusion has no gates
    h: Tensor  # (B, K, d) interest with which each view is aligned
    z: Tensor  # (B, K, d) projected known views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    interests: Interests  # output of the backbone
    seen: SessionBatch  # the batch with its views, predicted ones included; view_mask marks the usable ones
    prediction: Prediction | None = None  # None without a predictor
