"""Class paths in configurations: the known classes, and the present paths of earlier ones."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins

# Paths that configurations of earlier versions name, and their classes today: the only such table.
MOVED = {
    "llm4sbr.loggers.WandbLogger": "llm4sbr.callbacks.wandb_logger.WandbLogger",
    "llm4sbr.heads.ItemTitles": "llm4sbr.nn.heads.ItemTitles",
    "llm4sbr.heads.RepeatExplore": "llm4sbr.nn.heads.RepeatExplore",
    "llm4sbr.heads.SequentialRules": "llm4sbr.nn.heads.SequentialRules",
    "llm4sbr.heads.TextScores": "llm4sbr.nn.heads.TextScores",
    "llm4sbr.module.SBRModule": "llm4sbr.SBRModule",
    "llm4sbr.wrapper.LLM4SBRWrapper": "llm4sbr.LLM4SBRWrapper",
    "llm4sbr.recbole.RecBoleBackbone": "llm4sbr.RecBoleBackbone",
    "llm4sbr.resuming.ContinuedCSVLogger": "llm4sbr.runs.resume.ContinuedCSVLogger",
}

_LIGHTNING = {
    "lightning.pytorch.callbacks": (
        "BatchSizeFinder EarlyStopping DeviceStatsMonitor EMAWeightAveraging GradientAccumulationScheduler "
        "LearningRateFinder LearningRateMonitor ModelCheckpoint ModelSummary RichModelSummary "
        "RichProgressBar StochasticWeightAveraging Timer TQDMProgressBar WeightAveraging"
    ),
    "lightning.pytorch.loggers": "CSVLogger TensorBoardLogger WandbLogger",
    "lightning.pytorch.strategies": "DDPStrategy FSDPStrategy SingleDeviceStrategy",
    "lightning.pytorch.plugins.environments": "LightningEnvironment SLURMEnvironment TorchElasticEnvironment",
    "lightning.pytorch.cli": "ReduceLROnPlateau",
}


def renamed(value: Any) -> Any:
    """Replace the class paths of earlier versions in a value of a configuration, at any depth.

    >>> renamed({"class_path": "llm4sbr.loggers.WandbLogger"})
    {'class_path': 'llm4sbr.callbacks.wandb_logger.WandbLogger'}
    """
    if isinstance(value, str):
        return MOVED.get(value, value)
    if isinstance(value, list):
        return [renamed(part) for part in value]
    if isinstance(value, dict):
        return {key: renamed(part) for key, part in value.items()}
    return value


def renamed_word(word: str) -> str:
    """Replace the class path of an earlier version in one word of a command line."""
    option, equals, value = word.partition("=")
    return f"{option}={MOVED[value]}" if equals and value in MOVED else MOVED.get(word, word)


@cache
def known_paths() -> frozenset[str]:
    """Every name of a class that a stranger's configuration may build.

    These are registered plug-ins, the parts and callbacks of this package, the optimisers and schedules of
    torch, and callbacks, loggers and strategies of Lightning that only train, log and keep checkpoints.
    """
    import torch

    from llm4sbr import adapters, baselines, callbacks
    from llm4sbr.callbacks.wandb_logger import WandbLogger
    from llm4sbr.runs.resume import ContinuedCSVLogger
    from llm4sbr.training.from_checkpoint import PARTS
    from llm4sbr.training.row_adam import RowAdam
    from llm4sbr.training.sbr_module import SBRModule
    from llm4sbr.training.schedules import CosineToEnd
    from llm4sbr.training.wrapper import LLM4SBRWrapper

    own = (SBRModule, LLM4SBRWrapper, CosineToEnd, RowAdam, WandbLogger, ContinuedCSVLogger)
    classes: list[Any] = [*own, *PARTS]
    for group in (BACKBONES, HEADS, DATAMODULES):
        classes += load_plugins(group).values()
    for room in (adapters, baselines, callbacks):
        classes += [getattr(room, name) for name in room.__all__]
    schedules = torch.optim.lr_scheduler
    for room, base in ((torch.optim, torch.optim.Optimizer), (schedules, schedules.LRScheduler)):
        found = [one for one in vars(room).values() if isinstance(one, type) and issubclass(one, base)]
        classes += [one for one in found if one.__module__.startswith("torch.optim.")]
    for place, names in _LIGHTNING.items():
        classes += [
            getattr(import_module(place), name, None) for name in names.split()
        ]  # as this version has
    return frozenset(name for one in classes if isinstance(one, type) for name in _names(one))


def _names(kind: type) -> set[str]:
    """A class's own name and its paths: where it is defined, and the packages that export it."""
    found, package = {kind.__name__, f"{kind.__module__}.{kind.__qualname__}"}, kind.__module__
    while package:
        if getattr(sys.modules.get(package), kind.__name__, None) is kind:
            found.add(f"{package}.{kind.__name__}")
        package = package.rpartition(".")[0]
    return found
