"""Throughput: says at the end of training how fast it was, and what took the time."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

PARTS = ("waiting for batches", "the loss", "its gradient", "the optimiser", "validation")
_OFTEN = 0.3  # share of the time from which advice is worth a line


class Throughput(Callback):
    """Measures a training, prints examples per second and the share of each part, and logs the speed.

    Logs ``throughput/examples_per_second`` for every epoch, over all processes and without validation. After
    `fit` it prints the same of the whole training, unless the Trainer has no progress bar, and what to try
    if one part takes much of it. On a GPU the shares are those of the process that launches its work; a
    process that does not wait for the GPU at the end of an epoch was slower than it, and the line says so.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.examples = 0
        self._epoch = (0, 0.0)  # examples and seconds before this epoch
        self._since = self._behind = 0.0  # the latest moment; seconds in which a GPU finished what was asked

    @property
    def training_seconds(self) -> float:
        """Seconds without validation."""
        return sum(self.seconds.values()) - self.seconds["validation"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        self._epoch = (self.examples, self.training_seconds)
        self._since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch has arrived."""
        self._passed("waiting for batches")
        self.examples += len(batch.lengths)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """The loss is known."""
        self._passed("the loss")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The gradient is known."""
        self._passed("its gradient")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The weights are updated."""
        self._passed("the optimiser")
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
            self._behind += time.perf_counter() - self._since
            self._passed("its gradient")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the time between the last batch and validation as training."""
        if self._since:
            self._passed("the optimiser")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the validation."""
        if self._since:
            self._passed("validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the speed of the epoch."""
        examples, seconds = self.examples - self._epoch[0], self.training_seconds - self._epoch[1]
        if seconds:
            speed = trainer.world_size * examples / seconds
            pl_module.log("throughput/examples_per_second", speed, rank_zero_only=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        if self.examples and trainer.is_global_zero and trainer.progress_bar_callback is not None:
            print(self.summary(trainer.world_size, pl_module.device), flush=True)

    def summary(self, processes: int, device: torch.device) -> str:
        """The speed, the share of each part, and advice."""
        total = sum(self.seconds.values())
        share = {part: self.seconds[part] / total for part in PARTS}
        parts = ", ".join(f"{part} {value:.0%}" for part, value in share.items() if value >= 0.005)
        speed = processes * self.examples / max(self.training_seconds, 1e-9)
        said = f"{speed:,.0f} examples/s in training. Of the time: {parts}."
        return " ".join([said, *self._advice(share, processes, device)])

    def _advice(self, share: dict[str, float], processes: int, device: torch.device) -> list[str]:
        found = []
        if share["waiting for batches"] > _OFTEN:
            found.append("Batches come too slowly: try --data.num_workers or --data.session_graph false.")
        if share["the optimiser"] > _OFTEN:
            found.append("Adam walks the whole item table: try experiments/recipes/large-catalogue.yaml.")
        if share["validation"] > _OFTEN:
            found.append("Try --trainer.check_val_every_n_epoch or --trainer.limit_val_batches.")
        if device.type == "cuda":
            slow = self._behind < 0.02 * self.training_seconds
            found.append(
                "The GPU waited for the process: a larger --data.batch_size costs little."
                if slow
                else "The GPU was the bottleneck."
            )
        elif not found:
            threads, cores = torch.get_num_threads(), os.cpu_count() or 1
            found.append(f"Arithmetic is the bottleneck, on {threads} of {cores} CPU threads.")
        return found

    def _passed(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now
