"""A callback that times training steps and ends training in good order when the time is up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from place import write_json

WARM_UP = 5  # steps whose time is not counted


class Stopwatch(Callback):
    """Writes what a step takes; after ``seconds`` training stops behind a step, a validation and all.

    Lightning's own time limit counts what a resumed run took before; this one counts from its start.

    Args:
        path: JSON to write.
        seconds: Time that training may take.
    """

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = Path(path), seconds
        self._began = 0.0
        self._ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._ends.append(time.monotonic())
        if self._ends[-1] - self._began > self.seconds:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it down."""
        counted = self._ends[min(WARM_UP, len(self._ends) - 2) :] if len(self._ends) > 1 else []
        write_json(
            self.path,
            {
                "step": trainer.global_step,
                "seconds_a_step": (counted[-1] - counted[0]) / (len(counted) - 1) if counted else None,
                "steps_an_epoch": int(trainer.num_training_batches),
            },
        )
