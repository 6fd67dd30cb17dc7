"""Means over an epoch that an interruption does not cut short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor


class EpochMeans:
    """Means of named values over the examples of an epoch, over all processes.

    What Lightning gathers for an epoch's log is in no checkpoint, so after a resume its mean is of the rest
    of the epoch alone; this one's state is saved.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None  # (names + 1,) float64, weighted sums and the weight

    def add(self, values: Mapping[str, Tensor], weight: Tensor) -> None:
        """Add the means of a batch: a handful of operations in all, for every step comes here.

        Args:
            values: Scalars; the same names all through an epoch.
            weight: Examples they are means of, a scalar.
        """
        means = [value.detach() for value in values.values()]
        added = torch.stack([*means, torch.ones_like(weight)]).double() * weight
        self.names, self.sums = tuple(values), added if self.sums is None else self.sums + added

    def compute(self, module: LightningModule) -> dict[str, Tensor]:
        """Means over all processes; every process must ask."""
        if self.sums is None:
            return {}
        total = module.trainer.strategy.reduce(self.sums, reduce_op="sum")
        means = (total[:-1] / total[-1].clamp(min=1)).float()
        return dict(zip(self.names, means, strict=True))

    def reset(self) -> None:
        """Start an epoch."""
        self.names, self.sums = (), None

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"names": self.names, "sums": None if self.sums is None else self.sums.cpu()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """From a checkpoint."""
        sums = state["sums"]
        self.names, self.sums = tuple(state["names"]), None if sums is None else sums.to(device)
