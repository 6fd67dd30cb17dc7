"""Learning-rate schedules, and how an optimiser and its schedule are given to Lightning."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from llm4sbr.contracts.errors import InputError


class CosineToEnd(CosineAnnealingLR):
    """Half a cosine from the optimiser's rate to ``eta_min`` at the end of training, step by step.

    The Trainer knows the number of steps, so `configure` sets it.

    Args:
        optimizer: The optimiser.
        eta_min: Learning rate at the end.
    """

    def __init__(self, optimizer: Optimizer, eta_min: float = 0.0) -> None:
        super().__init__(optimizer, T_max=1, eta_min=eta_min)


def configure(
    module: LightningModule, optimizer: Optimizer, schedule: LRSchedulerTypeUnion | None
) -> OptimizerLRScheduler:
    """What `LightningModule.configure_optimizers` returns for an optimiser and its schedule.

    A `CosineToEnd` gets its length from the Trainer and goes on by steps; other schedules go on by epochs.

    Raises:
        InputError: The schedule ends with the training, and the Trainer has no end.
    """
    if schedule is None:
        return optimizer
    if not isinstance(schedule, CosineToEnd):
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}
    steps = module.trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise InputError("a cosine schedule ends with the training; give the Trainer max_epochs")
    schedule.T_max = max(int(steps), 1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fuse_on_cpu(optimizer: Optimizer, parameters: Iterable[nn.Parameter], precision: str | None) -> None:
    """Let Adam and AdamW update all weights in one kernel where nobody chose otherwise.

    On a CPU that takes a quarter of the time. On a GPU the default is as good, and Lightning refuses gradient
    clipping with a fused optimiser in mixed precision.

    Args:
        optimizer: The optimiser.
        parameters: What it trains.
        precision: The Trainer's; None without a Trainer.
    """
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return
    settings = ("fused", "foreach", "capturable", "differentiable")
    chosen = any(optimizer.defaults.get(name) for name in settings)
    on_cpu = all(weight.device.type == "cpu" for weight in parameters)
    if on_cpu and not chosen and precision in (None, "32-true"):
        for group in optimizer.param_groups:
            group["fused"] = True
