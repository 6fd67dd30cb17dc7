"""Stage 1's last step, as a callback: every batch of answers is on disk before the next is asked."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import distributed

from llm4sbr.views.inference.progress import Meter, StopRequest
from llm4sbr.views.inference.worker import Batch, Run


class ViewWriter(BasePredictionWriter):
    """Writes what `ViewInference` yields into this process's store, and localises a chunk when it is whole.

    Args:
        meter: Counts answers.
        stop: Asked between batches.
    """

    def __init__(self, meter: Meter, stop: StopRequest) -> None:
        super().__init__(write_interval="batch")
        self.meter, self.stop = meter, stop
        self._asked = [0, 0, 0, 0]  # prompts; tokens of prompts, computed, of answers
        self._began = (time.time(), time.monotonic())

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A signal ends the run after the batch, in every process."""
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
        """Pull answers as the engine gives them, and write each batch at once."""
        run = _run_of(pl_module)
        assert run is not None
        try:
            for part in prediction:
                run.save(part)
                self.meter.advance(len(part.answers))
                for answer in part.asked:
                    self._asked[0] += 1
                    self._asked[1] += answer.prompt_tokens
                    self._asked[2] += answer.computed_tokens
                    self._asked[3] += answer.answer_tokens
                if self.stop.requested:
                    break
        finally:
            prediction.close()  # ends the engine's work at once, also after an error
        run.localise(batch)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what it took; then wait for the other processes, so that their shards are whole."""
        self.note(trainer.global_rank, pl_module)
        if trainer.world_size > 1:
            _wait_for_all(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What was asked until here cost its time, too."""
        self.note(trainer.global_rank, pl_module)

    def note(self, rank: int, pl_module: LightningModule) -> None:
        """Write the record of this run, where anything was asked."""
        run = _run_of(pl_module)
        if run is not None and self._asked[0]:
            started, began = self._began
            run.record(started, rank, time.monotonic() - began, self._asked)
            self._asked = [0, 0, 0, 0]


def _run_of(module: LightningModule) -> Run | None:
    run: Run | None = module.run  # type: ignore[assignment]  # of ViewInference
    return run


def _wait_for_all(trainer: Trainer) -> None:
    """A barrier during which a signal is heard: the first process may wait for hours, and passes it on."""
    done = distributed.all_reduce(torch.zeros(1, device=trainer.strategy.root_device), async_op=True)
    assert done is not None
    while not done.is_completed():
        time.sleep(0.05)
    done.wait()  # raises where another process is gone
