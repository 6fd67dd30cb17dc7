"""The folder of a run: everything that a run keeps lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

_chosen: ContextVar[Path | None] = ContextVar("run_folder", default=None)


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Make `folder` the run's folder inside the block, whatever its loggers are."""
    before = _chosen.set(folder)
    try:
        yield
    finally:
        _chosen.reset(before)


def run_folder(trainer: Trainer) -> Path:
    """Find the folder of a run, which holds its ``checkpoints``. Collective: call it on every rank.

    It is that of the first logger. Lightning's ``log_dir`` is the same for loggers of files; for Weights &
    Biases it would be the parent folder of all runs.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    first = trainer.loggers[0] if trainer.loggers else None
    if first is None or isinstance(first, CSVLogger | TensorBoardLogger):
        return Path(trainer.log_dir or trainer.default_root_dir)
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    folder = os.path.join(str(first.save_dir or trainer.default_root_dir), str(first.name), version)
    return Path(trainer.strategy.broadcast(folder))
