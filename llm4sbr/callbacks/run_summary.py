"""RunSummary: stores the metrics of the chosen epoch as the run's summary."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from llm4sbr.callbacks.chosen_epoch import is_chosen, is_training_validation, validation_metrics
from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.contracts.files import write_text


class RunSummary(Callback):
    """Stores the validation metrics of the epoch that `ModelCheckpoint` chooses.

    The metrics are the run's summary: in ``summary.json`` in the run's folder, and in Weights & Biases
    instead of the last logged values, so that sweeps and tables of runs compare the chosen checkpoints.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics if this epoch is the best so far."""
        if not is_training_validation(trainer):
            return
        metrics = validation_metrics(trainer)
        if is_chosen(trainer, metrics, self.chosen):
            self.chosen = {**metrics, "epoch": trainer.current_epoch, "step": trainer.global_step}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary."""
        folder = run_folder(trainer)  # collective: call it on every rank
        if not trainer.is_global_zero or not self.chosen:
            return
        write_text(folder / "summary.json", json.dumps(self.chosen, indent=1) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(self.chosen)

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted run."""
        self.chosen = state_dict["chosen"]
