"""A callback that writes every batch of answers to disk before the next one is requested."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import distributed

from llm4sbr.views.inference.progress import Meter, Stopped, StopRequest, until_stopped
from llm4sbr.views.inference.worker import Batch, Run


class ViewWriter(BasePredictionWriter):
    """Writes the batches of `ViewInference` to this process's store, and localises each complete chunk.

    Args:
        meter: Progress display; it counts answers.
        stop: Stop request, checked between batches.
    """

    def __init__(self, meter: Meter, stop: StopRequest) -> None:
        super().__init__(write_interval="batch")
        self.meter, self.stop = meter, stop
        self._counts = [0, 0, 0, 0]  # prompts, prompt tokens, computed tokens, answer tokens
        self._began = (time.time(), time.monotonic())

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers with which a signal ends the run after the batch, in every process."""
        launcher = trainer.strategy.launcher
        self.stop.take_over(None if launcher is None else launcher.kill, helper=trainer.global_rank > 0)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Generator[Batch, None, None],
        batch_indices: Sequence[int] | None,
        batch: list[bytes],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Pull batches as the engine yields them, and write each one at once."""
        run = _run_of(pl_module)
        assert run is not None
        with closing(until_stopped(prediction, self.stop)) as parts:  # closed also after an error
            for part in parts:
                run.save(part)
                self.meter.advance(len(part.answers))
                for answer in part.generated:
                    self._counts[0] += 1
                    self._counts[1] += answer.prompt_tokens
                    self._counts[2] += answer.computed_tokens
                    self._counts[3] += answer.answer_tokens
        with suppress(Stopped), self.stop.interruptible():  # the next run localises the rest
            run.localise(batch)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the run's record, then wait for the other processes to complete their shards."""
        self.note(trainer.global_rank, pl_module)
        if trainer.world_size > 1:
            _wait_for_all(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the record also after an error: the queries until then took time."""
        self.note(trainer.global_rank, pl_module)

    def note(self, rank: int, pl_module: LightningModule) -> None:
        """Save the record of this run if it sent any prompt."""
        run = _run_of(pl_module)
        if run is not None and self._counts[0]:
            started, began = self._began
            run.record(started, rank, time.monotonic() - began, self._counts)
            self._counts = [0, 0, 0, 0]


def _run_of(module: LightningModule) -> Run | None:
    run: Run | None = module.run  # type: ignore[assignment]  # the module is a ViewInference
    return run


def _wait_for_all(trainer: Trainer) -> None:
    """A barrier that lets signals through: the first process may wait for hours, and forwards them."""
    done = distributed.all_reduce(torch.zeros(1, device=trainer.strategy.root_device), async_op=True)
    assert done is not None
    while not done.is_completed():
        time.sleep(0.05)
    done.wait()  # raises if another process is gone
