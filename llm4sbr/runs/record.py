"""What a run was made with, so that it can be made again."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from llm4sbr.contracts.files import write_text

NAME = "record.json"
_PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric", "torchmetrics", "numpy", "polars")


def record(trainer: Trainer) -> dict[str, Any]:
    """Versions, machine, data and command of a run that begins."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a checkout on the path
            versions[package] = "not installed"
    return {
        "command": sys.argv,
        "folder": os.getcwd(),
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": str(trainer.strategy.root_device.type),
            "processes": trainer.world_size,
        },
        "data": getattr(getattr(trainer, "datamodule", None), "fingerprint", None),
        "wandb": _wandb_id(trainer),
    }


def _wandb_id(trainer: Trainer) -> str | None:
    """The run's id in Weights & Biases, by which a resumed run goes on with it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _ = logger.experiment  # it gets its id when it begins
            return logger.version
    return None


class RecordConfig(SaveConfigCallback):
    """Saves the configuration, as Lightning does, and beside it what the run was made with."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` and ``record.json``."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # every process must ask
        told = self.already_saved
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not told:
            self.write(record(trainer), self._folder / NAME, trainer)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration, in the first process."""
        write_text(self._folder / self.config_filename, self.parser.dump(self.config, skip_none=False))

    def write(self, made_with: dict[str, Any], path: Path, trainer: Trainer) -> None:
        """Write the record, in the first process."""
        if trainer.is_global_zero:
            write_text(path, json.dumps(made_with, indent=1) + "\n")
