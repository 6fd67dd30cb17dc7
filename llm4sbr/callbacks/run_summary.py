"""RunSummary: what a run is judged by, wherever it is logged."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from llm4sbr.callbacks.chosen_epoch import counts, is_chosen, validated
from llm4sbr.contracts.files import write_text


class RunSummary(Callback):
    """Keeps the validation metrics of the epoch that `ModelCheckpoint` chooses, and tells the throughput.

    They are the run's summary: in ``summary.json`` in its folder, and in Weights & Biases in place of the
    last values that were logged, so that a sweep and a table of runs compare what would be used. Logs
    ``throughput/examples_per_second`` of all processes together, validation not counted.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, float] = {}
        self._examples = 0
        self._seconds = self._began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._examples, self._seconds = 0, 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._seconds += time.perf_counter() - self._began
        self._examples += len(batch.lengths)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the throughput."""
        if self._seconds:
            speed = trainer.world_size * self._examples / self._seconds
            pl_module.log("throughput/examples_per_second", speed, rank_zero_only=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics if this epoch is the best so far."""
        if not counts(trainer):
            return
        metrics = validated(trainer)
        if is_chosen(trainer, metrics, self.chosen):
            self.chosen = {**metrics, "epoch": trainer.current_epoch, "step": trainer.global_step}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary."""
        folder = trainer.log_dir  # every process must ask
        if not trainer.is_global_zero or not self.chosen:
            return
        if folder:
            write_text(Path(folder) / "summary.json", json.dumps(self.chosen, indent=1) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(self.chosen)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self.chosen = state_dict["chosen"]
