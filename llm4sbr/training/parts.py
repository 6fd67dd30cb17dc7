"""Settings of an optimiser, for loggers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn


def optimizer_settings(make: OptimizerCallable) -> dict[str, Any]:
    """Name and numeric settings of an optimiser, for a logger."""
    made = make([nn.Parameter(torch.zeros(1))])
    numbers = {name: value for name, value in made.defaults.items() if isinstance(value, int | float)}
    return {"name": type(made).__name__, **numbers}
