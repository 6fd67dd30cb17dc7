"""JointStop: lets several processes leave an evaluation loop at the same batch."""

from __future__ import annotations

import math
import time

import torch
from lightning.pytorch import Trainer

_EVERY = 1.0  # seconds between two votes


class JointStop:
    """Votes of all processes on whether to stop an evaluation or a prediction, about once a second.

    A process that left the loop alone would leave the others waiting for it in the next collective. A vote
    after every batch would make a GPU wait for the host each time, so the slowest process's time of a batch
    decides which batch votes next. One process decides alone, after every batch.

    >>> stop = JointStop()
    >>> trainer = Trainer(accelerator="cpu", logger=False)
    >>> stop.begin(trainer, 10), stop.vote(trainer, 0, False), stop.vote(trainer, 1, True)
    (None, False, True)
    """

    def begin(self, trainer: Trainer, batches: float) -> None:
        """Begin a loop. Collective: call it on every rank.

        Args:
            trainer: Trainer that runs the loop.
            batches: Number of this process's batches; `math.inf` if it is not known.
        """
        self._next, self._began = 0, time.monotonic()
        self._last = batches - 1
        if trainer.world_size > 1:
            self._last = -self._largest(trainer, -self._last)

    def vote(self, trainer: Trainer, batch_idx: int, stop: bool) -> bool:
        """Whether all processes stop after this batch. Collective: call it on every rank, for every batch.

        Args:
            trainer: Trainer that runs the loop.
            batch_idx: Index of the batch, the same on every rank.
            stop: Whether this process wants to stop.
        """
        if trainer.world_size == 1:
            return stop
        # Only batches that every process has may vote.
        if batch_idx < self._next or batch_idx > self._last:
            return False
        seconds = (time.monotonic() - self._began) / (batch_idx + 1)
        slowest = self._largest(trainer, math.inf if stop else seconds)
        if math.isinf(slowest):
            return True
        self._next = batch_idx + max(1, int(_EVERY / max(slowest, 1e-6)))
        return False

    @staticmethod
    def _largest(trainer: Trainer, value: float) -> float:
        device = trainer.strategy.root_device
        largest = trainer.strategy.reduce(torch.tensor(value, device=device), reduce_op="max")
        assert isinstance(largest, torch.Tensor)
        return float(largest)
