"""Learning-rate schedules and the optimiser configuration for Lightning."""

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
from llm4sbr.contracts.ranges import NonNegativeFloat


class CosineToEnd(CosineAnnealingLR):
    """Half a cosine per step, from the optimiser's rate to ``eta_min`` at the end of training.

    `configure` sets the number of steps, which only the Trainer knows.

    Args:
        optimizer: Optimiser whose rate is scheduled.
        eta_min: Learning rate at the end.
    """

    def __init__(self, optimizer: Optimizer, eta_min: NonNegativeFloat = 0.0) -> None:
        super().__init__(optimizer, T_max=1, eta_min=eta_min)


def configure(
    module: LightningModule, optimizer: Optimizer, schedule: LRSchedulerTypeUnion | None
) -> OptimizerLRScheduler:
    """Return value of `LightningModule.configure_optimizers` for an optimiser and its schedule.

    A `CosineToEnd` gets its length from the Trainer and advances per step; other schedules advance per epoch.

    Raises:
        InputError: If the schedule is a `CosineToEnd` and the Trainer has no maximum number of steps, or a
            number is out of range (`check_numbers`).
    """
    check_numbers(optimizer, schedule)
    if schedule is None:
        return optimizer
    if not isinstance(schedule, CosineToEnd):
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}
    steps = module.trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise InputError("a cosine schedule ends with the training; give the Trainer max_epochs")
    schedule.T_max = max(int(steps), 1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_numbers(optimizer: Optimizer, schedule: LRSchedulerTypeUnion | None) -> None:
    """Check the settings of an optimiser and a schedule of any class; PyTorch accepts infinity and NaN.

    Args:
        optimizer: Optimiser whose learning rates are above 0.
        schedule: Schedule; its bounds, such as the threshold of a plateau, may be infinite.

    Raises:
        InputError: If a learning rate is not a finite number above 0, or another setting is not finite.
    """
    for group in optimizer.param_groups:
        rate = float(group.get("initial_lr", group["lr"]))  # a warm-up may begin at 0
        if not 0 < rate < math.inf:
            raise InputError("the optimizer's lr must be a finite number above 0", value=rate)
        for name, value in group.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise InputError(f"the optimizer's {name} must be finite", value=value)
    for name, value in vars(schedule).items() if schedule is not None else ():
        if isinstance(value, float) and (math.isnan(value) or (name == "gamma" and not 0 < value < math.inf)):
            raise InputError(f"the schedule's {name} must be a finite number above 0", value=value)


def fuse_on_cpu(optimizer: Optimizer, parameters: Iterable[nn.Parameter], precision: str | None) -> None:
    """Use the fused kernel of Adam and AdamW on a CPU, unless the user set another implementation.

    On a CPU the fused update takes a quarter of the time. On a GPU the default is as fast, and Lightning
    rejects gradient clipping with a fused optimiser in mixed precision.

    Args:
        optimizer: Optimiser to change in place.
        parameters: Parameters that it trains.
        precision: Precision of the Trainer; None without a Trainer.
    """
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return
    settings = ("fused", "foreach", "capturable", "differentiable")
    chosen = any(optimizer.defaults.get(name) for name in settings)
    on_cpu = all(weight.device.type == "cpu" for weight in parameters)
    if on_cpu and not chosen and precision in (None, "32-true"):
        for group in optimizer.param_groups:
            group["fused"] = True
