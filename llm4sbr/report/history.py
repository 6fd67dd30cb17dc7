"""History of a training run for the report: metrics per epoch and time per epoch."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

MONITOR = "val/ndcg@20"  # chooses the epoch, as in experiments/base.yaml


class EpochLog(Callback):
    """Reports every epoch in one line and records its time.

    Args:
        print_line: Function that receives the line; None for no output.
    """

    def __init__(self, print_line: Callable[[str], None] | None = None) -> None:
        self.print_line = print_line  # Lightning sets an attribute `log` on callbacks
        self.seconds: list[float] = []
        self._began = 0.0

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean seconds per epoch, validation included; None before the first epoch ends."""
        return mean(self.seconds) if self.seconds else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the time and report the epoch."""
        self.seconds.append(time.perf_counter() - self._began)
        metrics = trainer.callback_metrics
        shown = ", ".join(
            f"{name} {100 * float(metrics[name]):.2f} %"
            for name in ("val/recall@20", MONITOR)
            if name in metrics
        )
        if self.print_line is not None:
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self.print_line(f"{epoch}: {shown} ({self.seconds[-1]:.0f} s)")


def read_history(path: str | Path) -> tuple[dict[str, float], ...]:
    """Read one record per epoch from a CSVLogger's ``metrics.csv``; empty if the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return ()
    epochs: dict[int, dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            known = {name: float(value) for name, value in row.items() if value and "/" in name}
            known = {name: value for name, value in known.items() if not name.startswith("test/")}
            if known and row.get("epoch"):
                epochs.setdefault(int(row["epoch"]), {}).update(known)
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def best_epoch(history: tuple[dict[str, float], ...], monitor: str = MONITOR) -> int | None:
    """The epoch with the highest value, counted from 1; the first of equals."""
    known = [(record[monitor], -epoch) for epoch, record in enumerate(history, 1) if monitor in record]
    return -max(known)[1] if known else None
