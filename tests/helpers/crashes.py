"""Ends a training run in its middle, and leaves a checkpoint to go on from."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback


class Crash(Exception):
    """What `StopAt` ends a run with."""


class StopAt(Callback):
    """Saves after a step and ends the run as a crash would."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save and end."""
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Crash
