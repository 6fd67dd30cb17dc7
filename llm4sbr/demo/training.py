"""Train one model for the report, and tell how far the demo is."""

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
    """Fit, choose the epoch on validation, read test once, write recommendations for the test sessions.

    Args:
        module: The model; it holds the chosen epoch's weights afterwards.
        data: The data module.
        root: The demo's folder.
        folder: Of this run, below ``root/runs``.
        name: What the model is called.
        note: What it is.
        epochs: How long to train.
        callbacks: More callbacks.
        steps: Where to tell of progress.
    """
    place = root / "runs" / folder
    for old in [*place.glob("best*.ckpt"), place / "metrics.csv"]:
        old.unlink(missing_ok=True)
    log = EpochLog(steps.tell)
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
    """Tells which step runs and how long each took.

    Args:
        total: How many steps there will be.
    """

    def __init__(self, total: int) -> None:
        from rich.console import Console

        self.total = total
        self.timings: list[tuple[str, float]] = []
        self._console = Console(highlight=False, soft_wrap=True)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run a step."""
        self._console.print(f"[{len(self.timings) + 1}/{self.total}] {name}", style="bold", markup=False)
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.timings.append((name, seconds))
        self.tell(duration(seconds))

    def tell(self, line: str) -> None:
        """Print a line of the current step."""
        self._console.print(f"      {line}", markup=False)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
