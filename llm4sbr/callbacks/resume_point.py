"""ResumePoint: a training run that is killed or told to stop goes on where it was."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from llm4sbr.contracts.errors import InputError

NAME = "resume.ckpt"


class ResumePoint(Callback):
    """Keeps one checkpoint from which ``fit`` goes on as if nothing had happened, and stops on SIGTERM.

    It is replaced as a whole every so often, between two steps, and removed when training has ended. On
    SIGTERM all processes end the step that they are at, the checkpoint is written, and the exception that
    ends the run has status 143, as a shell says of what SIGTERM stopped (`console` then ends by that signal).
    After ``kill -9`` what came after the last checkpoint is computed again, to the same numbers.

    Args:
        every_n_minutes: Minutes between two checkpoints; 0 for none but SIGTERM's.
        every_n_steps: Steps between two; 0 to go by the clock alone.
    """

    def __init__(self, every_n_minutes: float = 5.0, every_n_steps: int = 0) -> None:
        if every_n_minutes < 0 or every_n_steps < 0:
            raise InputError(
                "every_n_minutes and every_n_steps must not be negative",
                value=(every_n_minutes, every_n_steps),
            )
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self._asked = self._after_validation = False
        self._saved_at = 0.0
        self._before: Any = None

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Where a run's checkpoint lies: with the others. Every process must ask."""
        return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / NAME

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for SIGTERM, and keep the beginning."""
        self._asked = self._after_validation = False
        self._saved_at = time.monotonic()
        if trainer.global_step == 0:  # so that a run without this checkpoint is one that has ended
            self._save(trainer)
        # In place of Lightning's own: in several processes that one has a handler talk to the others, in the
        # middle of whatever else they are saying to each other.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._heard)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save now and then; stop where SIGTERM came, to any of the processes."""
        due = bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0
        late = bool(self.every_n_minutes) and time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        anyone = trainer.strategy.reduce_boolean_decision
        if not anyone(self._asked or due or late, all=False):
            return
        if anyone(self._asked, all=False):
            self._after_validation = _validation_follows(trainer)
            self._stop(trainer, not self._after_validation)
        # A resume would take what follows for done.
        elif not (_validation_follows(trainer) or trainer.fit_loop.epoch_loop._num_ready_batches_reached()):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the validation that a SIGTERM found due; half of one could not be resumed."""
        self._stop(trainer, self._after_validation)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what SIGTERM stopped, and say how to go on."""
        if isinstance(exception, SIGTERMException):
            exception.code = 128 + signal.SIGTERM
            if trainer.training or trainer.validating:
                loop = trainer.fit_loop.epoch_loop
                if self._after_validation and not loop._num_ready_batches_reached():
                    # A resume passes the end of this step again, and there counts it for the loggers again.
                    loop._batches_that_stepped -= 1
                self._save(trainer)
                rank_zero_info(f"Stopped by SIGTERM. `llm4sbr resume {trainer.log_dir}` goes on.")
        self._deafen()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of a run that has ended."""
        self._deafen()
        path = self.path(trainer)
        if trainer.is_global_zero:
            path.unlink(missing_ok=True)

    def _stop(self, trainer: Trainer, now: bool) -> None:
        """Lightning raises SIGTERMException at the end of this step or epoch, in all processes alike."""
        if now:
            trainer._signal_connector.received_sigterm = True

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # what is logged up to here must not be lost with what comes after
        trainer.save_checkpoint(self.path(trainer), weights_only=False)
        self._saved_at = time.monotonic()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _deafen(self) -> None:
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def _validation_follows(trainer: Trainer) -> bool:
    """Whether this step's end brings a validation."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and bool(trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))
