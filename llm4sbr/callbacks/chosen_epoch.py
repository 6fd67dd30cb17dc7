"""ChosenEpoch: a callback that looks at every validation and keeps what it saw at the chosen epoch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from llm4sbr.report.evaluation_hooks import Seen, watching
from llm4sbr.training.ranking_module import RankingModule


def counts(trainer: Trainer) -> bool:
    """Whether a validation is one of training, by which an epoch is chosen."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def validated(trainer: Trainer) -> dict[str, float]:
    """The metrics of the validation that has just ended."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def is_chosen(trainer: Trainer, metrics: dict[str, float], before: dict[str, float]) -> bool:
    """Whether `ModelCheckpoint` prefers a validation to an earlier one; without a monitor the last counts.

    Args:
        trainer: It knows the checkpoint callback.
        metrics: Of the new validation.
        before: Of the one chosen so far; empty at first.
    """
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or checkpoint.monitor not in metrics:
        return True
    if checkpoint.monitor not in before:
        return True
    new, old = metrics[checkpoint.monitor], before[checkpoint.monitor]
    return new > old if checkpoint.mode == "max" else new < old


class ChosenEpoch(Callback):
    """Base of callbacks that show something of the chosen epoch's validation.

    A subclass says in `look` what it takes from a batch, and in `keep` what becomes of it where the
    validation is the best so far. Nothing is computed twice: it looks on while Lightning validates.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}  # of the chosen epoch
        self._watch = ExitStack()

    def begin(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """A validation begins."""
        raise NotImplementedError

    def look(self, seen: Seen) -> None:
        """A batch of it."""
        raise NotImplementedError

    def keep(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """It has ended, and is the best so far. Every process is asked."""
        raise NotImplementedError

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look on."""
        if counts(trainer) and isinstance(pl_module, RankingModule):
            self.begin(trainer, pl_module)
            self._watch.enter_context(watching(pl_module, self.look))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was seen if this epoch is the best so far."""
        self._watch.close()
        if not counts(trainer) or not isinstance(pl_module, RankingModule):
            return
        metrics = validated(trainer)
        if is_chosen(trainer, metrics, self.metrics):
            self.metrics = metrics
            self.keep(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look no longer."""
        self._watch.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self.metrics = state_dict["metrics"]
