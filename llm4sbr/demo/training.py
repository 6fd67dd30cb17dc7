"""Training of one model for the page, and progress of the demo in the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from llm4sbr.callbacks import RecommendationWriter
from llm4sbr.report.history import MONITOR, EpochLog, best_epoch, read_history
from llm4sbr.report.page import duration
from llm4sbr.report.records import RunResult
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.views.quiet import quiet_lightning


def train(
    module: SBRModule,
    data: LightningDataModule,
    root: Path,
    folder: str,
    name: str,
    note: str,
    epochs: int,
    callbacks: list[Callback],
    steps: Steps,
) -> RunResult:
    """Fit, choose the epoch by validation, test once, and write recommendations for the test sessions.

    Args:
        module: Model to train; it has the weights of the chosen epoch afterwards.
        data: Data module.
        root: Folder of the demo.
        folder: Name of the run's folder below ``root/runs``.
        name: Name of the model on the page.
        note: Description of the model in one sentence.
        epochs: Number of training epochs.
        callbacks: Callbacks besides those of the demo.
        steps: Printer of the progress.
    """
    place = root / "runs" / folder
    for old in [*place.glob("best*.ckpt"), place / "metrics.csv"]:
        old.unlink(missing_ok=True)
    log = EpochLog(steps.print)
    best = ModelCheckpoint(
        place, filename="best-{epoch}", monitor=MONITOR, mode="max", save_weights_only=True
    )
    writer = RecommendationWriter(str(root / "recommendations" / f"{folder}.parquet"))
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=epochs,
            devices=1,
            deterministic="warn",
            logger=CSVLogger(root / "runs", name=folder, version=""),
            callbacks=[*callbacks, log, best, writer],
            default_root_dir=root,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        (metrics,) = trainer.test(
            module, data, ckpt_path=best.best_model_path, verbose=False, weights_only=True
        )
        trainer.predict(module, data, return_predictions=False)
    module.cpu().eval()
    history = read_history(place / "metrics.csv")
    return RunResult(
        name,
        note,
        dict(metrics),
        history,
        log.seconds_per_epoch,
        best_epoch(history),
        sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
    )


class Steps:
    """Prints the name of each step and its duration.

    Args:
        total: Number of steps.
    """

    def __init__(self, total: int) -> None:
        from rich.console import Console

        self.total = total
        self.timings: list[tuple[str, float]] = []
        self._console = Console(highlight=False, soft_wrap=True)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Print the name of a step, time its block, and print the time."""
        self._console.print(f"[{len(self.timings) + 1}/{self.total}] {name}", style="bold", markup=False)
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.timings.append((name, seconds))
        self.print(duration(seconds))

    def print(self, line: str) -> None:
        """Print a line below the name of the current step."""
        self._console.print(f"      {line}", markup=False)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads that torch uses inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
