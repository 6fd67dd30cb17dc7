"""Epoch means that survive an interruption of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor


class EpochMeans:
    """Means of named values over the examples of an epoch and over all processes.

    Lightning does not save its own epoch means in checkpoints, so after a resume they cover only the rest of
    the epoch. The state of this class is saved.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None  # (names + 1,) float64: weighted sums, then the total weight

    def add(self, values: Mapping[str, Tensor], weight: Tensor) -> None:
        """Add the means of a batch. It runs in every step, so it uses few operations.

        Args:
            values: Scalar means by name; the names stay the same within an epoch.
            weight: Number of examples behind the means, a scalar.
        """
        means = [value.detach() for value in values.values()]
        added = torch.stack([*means, torch.ones_like(weight)]).double() * weight
        self.names, self.sums = tuple(values), added if self.sums is None else self.sums + added

    def compute(self, module: LightningModule) -> dict[str, Tensor]:
        """Means over all processes. Collective: call it on every rank."""
        if self.sums is None:
            return {}
        total = module.trainer.strategy.reduce(self.sums, reduce_op="sum")
        means = (total[:-1] / total[-1].clamp(min=1)).float()
        return dict(zip(self.names, means, strict=True))

    def reset(self) -> None:
        """Reset the sums at the start of an epoch."""
        self.names, self.sums = (), None

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"names": self.names, "sums": None if self.sums is None else self.sums.cpu()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Load the state from a checkpoint."""
        sums = state["sums"]
        self.names, self.sums = tuple(state["names"]), None if sums is None else sums.to(device)
