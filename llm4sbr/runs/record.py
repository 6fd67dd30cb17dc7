"""Record of a run's versions, machine, data and command, so that the run can be repeated."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.runs.trust import remember

NAME = "record.json"
_PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric", "torchmetrics", "numpy", "polars")


def record(trainer: Trainer) -> dict[str, Any]:
    """Return the versions, machine, data and command of a run that begins."""
    return {
        "command": sys.argv,
        "folder": os.getcwd(),
        "versions": versions(_PACKAGES),
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


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of packages."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout on sys.path
            found[package] = "not installed"
    return found


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        InputError: The file is missing, or is not a JSON object.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            "the record of the run cannot be read", path=path, hint="`llm4sbr fit` writes it"
        ) from error
    if not isinstance(found, dict):
        raise InputError("this is not the record of a run", path=path, value=found)
    return found


def _wandb_id(trainer: Trainer) -> str | None:
    """Return the run's id in Weights & Biases, which a resumed run needs to continue it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _ = logger.experiment  # this access starts the run and sets its id
            return logger.version
    return None


class RecordConfig(SaveConfigCallback):
    """Saves the configuration, as Lightning does, and the record of the run."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` and ``record.json``."""
        self._folder = run_folder(trainer)  # collective: call it on every rank
        saved = self.already_saved
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not saved:
            made_with = {**record(trainer), "run": str(self._folder.resolve())}
            self.write(made_with, self._folder / NAME, trainer)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration, on rank 0, and trust it: its classes are the user's choice."""
        path = self._folder / self.config_filename
        remember(write_text(path, self.parser.dump(self.config, skip_none=False)))

    def write(self, made_with: dict[str, Any], path: Path, trainer: Trainer) -> None:
        """Write the record, on rank 0."""
        if trainer.is_global_zero:
            write_text(path, json.dumps(made_with, indent=1) + "\n")
