"""Means over an epoch that an interruption does not cut short."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor


class EpochMeans:
    """Means of named values over the examples of an epoch, over all processes.

    What Lightning gathers for an epoch's log is in no checkpoint, so after a resume its mean is of the rest
    of the epoch alone; this one's state is saved.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}  # name: (2,) float64, weighted sum and weight

    def add(self, values: Mapping[str, Tensor], weight: int | Tensor) -> None:
        """Add the means of a batch.

        Args:
            values: Scalars.
            weight: Examples they are means of.
        """
        for name, value in values.items():
            value = value.detach().double()
            added = torch.stack((value * weight, torch.as_tensor(weight, device=value.device).double()))
            self.sums[name] = self.sums[name] + added if name in self.sums else added

    def compute(self, module: LightningModule) -> dict[str, Tensor]:
        """Means over all processes; every process must ask."""
        means = {}
        for name in sorted(self.sums):
            total = module.trainer.strategy.reduce(self.sums[name], reduce_op="sum")
            means[name] = (total[0] / total[1].clamp(min=1)).float()
        return means

    def reset(self) -> None:
        """Start an epoch."""
        self.sums = {}

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {name: value.cpu() for name, value in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """From a checkpoint."""
        self.sums = {name: value.to(device) for name, value in state.items()}
