"""ChosenEpoch: base class of callbacks that record the validation of the chosen epoch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from llm4sbr.report.evaluation_hooks import Seen, evaluation_hooks
from llm4sbr.training.ranking_module import RankingModule


def is_training_validation(trainer: Trainer) -> bool:
    """Whether the current validation is part of training and not a sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def validation_metrics(trainer: Trainer) -> dict[str, float]:
    """The metrics of the validation that has just ended."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def is_chosen(trainer: Trainer, metrics: dict[str, float], before: dict[str, float]) -> bool:
    """Whether `ModelCheckpoint` prefers a validation to an earlier one; without a monitor the latest wins.

    Args:
        trainer: Trainer with the checkpoint callback.
        metrics: Metrics of the new validation.
        before: Metrics of the validation chosen so far; empty at first.
    """
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or checkpoint.monitor not in metrics:
        return True
    if checkpoint.monitor not in before:
        return True
    new, old = metrics[checkpoint.monitor], before[checkpoint.monitor]
    return new > old if checkpoint.mode == "max" else new < old


class ChosenEpoch(Callback):
    """Base class of callbacks that report on the chosen epoch's validation.

    A subclass records a batch in `add_batch`, and in `keep_epoch` it stores the records of a validation that
    is the best so far. It uses the outputs of Lightning's own validation, so nothing is computed twice.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}  # metrics of the chosen epoch
        self._watch = ExitStack()

    def start(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Reset the records at the start of a validation."""
        raise NotImplementedError

    def add_batch(self, seen: Seen) -> None:
        """Record a validation batch."""
        raise NotImplementedError

    def keep_epoch(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Store the records of a finished validation, the best so far. Called on every rank."""
        raise NotImplementedError

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start recording."""
        if is_training_validation(trainer) and isinstance(pl_module, RankingModule):
            self.start(trainer, pl_module)
            self._watch.enter_context(evaluation_hooks(pl_module, self.add_batch))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop recording, and store the records if this epoch is the best so far."""
        self._watch.close()
        if not is_training_validation(trainer) or not isinstance(pl_module, RankingModule):
            return
        metrics = validation_metrics(trainer)
        if is_chosen(trainer, metrics, self.metrics):
            self.metrics = metrics
            self.keep_epoch(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop recording."""
        self._watch.close()

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted run."""
        self.metrics = state_dict["metrics"]
