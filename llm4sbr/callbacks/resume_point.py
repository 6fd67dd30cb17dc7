"""ResumePoint: lets an interrupted training run resume at the same step."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from llm4sbr.callbacks.joint_stop import JointStop
from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.contracts.ranges import NonNegativeFloat, NonNegativeInt, Ranged

NAME = "resume.ckpt"
_GRACE = 3.0  # seconds for the rest of a validation after SIGTERM


class ResumePoint(Ranged, Callback):
    """Keeps one checkpoint for an exact resume of ``fit``, and stops the run on SIGTERM.

    The checkpoint is replaced atomically at intervals, between two steps, and removed at the end of training.
    On SIGTERM all processes finish the current step, the checkpoint is written, and the run ends with an
    exception of status 143, the shell's status for SIGTERM (`console` then ends by that signal). Processes
    that are still in a validation three seconds later end there together, and ``validate``, ``test`` and
    ``predict`` within about a second (`JointStop`).
    After ``kill -9`` the steps after the last checkpoint are computed again, with the same results.

    Args:
        every_n_minutes: Minutes between two checkpoints; 0 for no timed checkpoints.
        every_n_steps: Steps between two checkpoints; 0 for no checkpoints by step.
    """

    def __init__(self, every_n_minutes: NonNegativeFloat = 5.0, every_n_steps: NonNegativeInt = 0) -> None:
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self._sigterm_received = self._after_validation = False
        self._save_at_end = True
        self._saved_at = self._sigterm_at = 0.0
        self._joint_stop = JointStop()
        self._before: Any = None

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Path of a run's checkpoint, beside the other checkpoints. Collective: call it on every rank."""
        return run_folder(trainer) / "checkpoints" / NAME

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the SIGTERM handler and save the initial state."""
        self._sigterm_received = self._after_validation = False
        self._save_at_end = True
        self._saved_at = time.monotonic()
        if trainer.global_step == 0:  # so that a run without this checkpoint has ended
            self._save(trainer)
        self._take_handler()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at intervals; stop if any rank has received SIGTERM."""
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return  # no checkpoint holds the gradients between two steps
        due = bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0
        late = bool(self.every_n_minutes) and time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        any_rank = trainer.strategy.reduce_boolean_decision
        if not any_rank(self._sigterm_received or due or late, all=False):
            return
        if any_rank(self._sigterm_received, all=False):
            self._after_validation = _validation_follows(trainer)
            self._stop(trainer, not self._after_validation)
        # No save before a validation or at the end of an epoch: a resumed run would skip them.
        elif not (_validation_follows(trainer) or trainer.fit_loop.epoch_loop._num_ready_batches_reached()):
            self._save(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the best checkpoints of a run again whose folder was moved or copied.

        Lightning forgets them if the path of their folder has changed.
        """
        states = checkpoint.get("callbacks")
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key) if isinstance(states, dict) else None
            if isinstance(state, dict) and isinstance(callback, ModelCheckpoint) and callback.dirpath:
                _relocate(state, Path(callback.dirpath))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the votes of a validation within training, or alone."""
        self._begin(trainer, trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the votes of a test."""
        self._begin(trainer, trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the votes of a prediction, whose loop in Lightning passes over SIGTERM."""
        self._begin(trainer, trainer.num_predict_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop seconds after SIGTERM; the last checkpoint stays, as a partial validation can't be resumed."""
        fitting = trainer.state.fn == "fit"
        late = self._sigterm_received and (not fitting or time.monotonic() - self._sigterm_at > _GRACE)
        if not trainer.sanity_checking and dataloader_idx == 0:
            self._vote(trainer, batch_idx, late)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop at SIGTERM."""
        if dataloader_idx == 0:
            self._vote(trainer, batch_idx, self._sigterm_received or trainer.received_sigterm)

    on_predict_batch_end = on_test_batch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a run that SIGTERM stopped, and log how to resume it."""
        if isinstance(exception, SIGTERMException):
            exception.code = 128 + signal.SIGTERM
            fitting = trainer.state.fn == "fit" and (trainer.training or trainer.validating)
            if fitting and self._save_at_end:
                loop = trainer.fit_loop.epoch_loop
                if self._after_validation and not loop._num_ready_batches_reached():
                    # A resumed run repeats the end of this step and counts it for the loggers again.
                    loop._batches_that_stepped -= 1
                self._save(trainer)
            if trainer.state.fn == "fit":
                folder = shlex.quote(str(run_folder(trainer)))  # collective: every rank reads it
                rank_zero_info(f"Stopped by SIGTERM. Resume with `llm4sbr resume {folder}`.")
        self._restore_handler()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after a validation that was due at SIGTERM, because a partial validation can't be resumed."""
        self._stop(trainer, self._after_validation)
        self._end(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler."""
        self._end(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler."""
        self._end(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of a run that has ended."""
        self._restore_handler()
        path = self.path(trainer)
        if trainer.is_global_zero:
            path.unlink(missing_ok=True)

    def _stop(self, trainer: Trainer, now: bool) -> None:
        """Make Lightning raise SIGTERMException at the end of this step or epoch, on every rank."""
        if now:
            trainer._signal_connector.received_sigterm = True

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # the log up to the checkpoint must survive a kill
        trainer.save_checkpoint(self.path(trainer), weights_only=False)
        self._saved_at = time.monotonic()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._sigterm_at = self._sigterm_at or time.monotonic()
        self._sigterm_received = True

    def _begin(self, trainer: Trainer, batches: list[int | float]) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn != "fit":
            self._sigterm_received = False
            self._take_handler()
        self._joint_stop.begin(trainer, batches[0] if batches else 0)

    def _vote(self, trainer: Trainer, batch_idx: int, stop: bool) -> None:
        if self._joint_stop.vote(trainer, batch_idx, stop):
            self._save_at_end = False
            raise SIGTERMException

    def _end(self, trainer: Trainer) -> None:
        if trainer.state.fn != "fit":
            self._restore_handler()

    def _take_handler(self) -> None:
        # This replaces Lightning's handler, which starts a collective inside the signal handler, possibly in
        # the middle of another collective.
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_sigterm)

    def _restore_handler(self) -> None:
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def _relocate(state: dict[str, Any], folder: Path) -> None:
    """Change the paths in the state of a `ModelCheckpoint` to `folder`, if its best checkpoint is there."""
    best = state.get("best_model_path")
    if not isinstance(best, str) or (best and not (folder / Path(best).name).exists()):
        return
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        if state.get(name):
            state[name] = str(folder / Path(str(state[name])).name)
    if isinstance(state.get("best_k_models"), dict):
        state["best_k_models"] = {
            str(folder / Path(str(path)).name): score for path, score in state["best_k_models"].items()
        }
    state["dirpath"] = str(folder)


def _validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows this step."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and bool(trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))
