"""EpochLines: prints a line for each epoch where no terminal shows a progress bar."""

from __future__ import annotations

import sys

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from llm4sbr.callbacks.chosen_epoch import is_training_validation, validation_metrics


class EpochLines(Callback):
    """Prints the validation of each epoch if the output is a file or a pipe.

    There the progress bar of Lightning prints its last state alone, after training, so that the log of a long
    run would say nothing until the end. A trainer without a progress bar prints no lines either.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the progress bar, after that by which the epoch is chosen."""
        if not is_training_validation(trainer) or not trainer.is_global_zero:
            return
        if sys.stdout.isatty() or trainer.progress_bar_callback is None:
            return
        metrics = validation_metrics(trainer)
        checkpoint = trainer.checkpoint_callback
        chosen = checkpoint.monitor if isinstance(checkpoint, ModelCheckpoint) else None
        names = [name for name in (chosen, *trainer.progress_bar_metrics) if name in metrics]
        said = ", ".join(f"{name} {metrics[name]:.4f}" for name in dict.fromkeys(names))
        print(f"Epoch {trainer.current_epoch}, step {trainer.global_step}: {said}", flush=True)
