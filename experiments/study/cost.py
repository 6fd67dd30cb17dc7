"""What a training step of each backbone costs on this machine, and so the protocol."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from experiments.benchmarks.results import result, save
from experiments.study.fits import VARIANTS, Shared, check_variants, fit_words
from experiments.study.names import backbones as registered
from experiments.study.rows import Key
from llm4sbr.runs.trainer_cli import run

WARM_UP = 5  # steps whose time is not counted


class StepTimer(Callback):
    """Seconds of each training step, from one step's end to the next one's."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Mean of a step: the median of batches of like length would say little."""
        return (self.ends[-1] - self.ends[WARM_UP]) / (len(self.ends) - 1 - WARM_UP)


def cost(
    data: str,
    data_dir: str | None = None,
    backbones: list[str] | None = None,
    variants: list[str] | None = None,
    steps: int = 30,
    epochs: int = 30,
    store: str = "views/beauty",
    settings: dict[str, Any] | None = None,
    json: Path | None = None,
) -> None:
    """Measure a training step of backbones bare and wrapped, and print what the protocol costs here.

    Each is trained for some steps by ``llm4sbr fit`` on the given data. Times are means over the steps, data
    loading included. Nothing is kept but the figures.

    Example::

        python -m experiments cost --data experiments/data/beauty.yaml --store views/beauty --steps 50
            --json experiments/results/cost-beauty.json

    Args:
        data: Data module YAML.
        data_dir: Folder of the data, if not the YAML's.
        backbones: Registered names; all by default.
        variants: Which of bare, titles, llm, llm+titles and no-views; the first two by default.
        steps: Steps to measure.
        epochs: Epochs of all fits of one model together, for the sum.
        store: Folder that ``llm4sbr views infer`` wrote.
        settings: Settings of every fit (see compare).
        json: File for the rows.
    """
    variants = variants or ["bare", "titles"]
    check_variants(variants)
    shared = Shared(data, data_dir, store, settings or {})
    rows: list[dict[str, Any]] = []
    print("| backbone | variant | ms a step | s an epoch | over bare | weights |\n|---|---|---|---|---|---|")
    for backbone in backbones or registered():
        bare = None
        for variant in variants:
            row = timed(shared, Key(backbone, variant, 0), steps)
            bare = row["ms_a_step"] if variant == "bare" else bare
            row["over_bare"] = (
                None if bare is None or variant == "bare" else round(row["ms_a_step"] / bare, 2)
            )
            rows.append(row)
            cells = [f"{row['ms_a_step']:.0f}", f"{row['seconds_an_epoch']:.0f}"]
            cells += [
                "–" if row["over_bare"] is None else f"{row['over_bare']:.2f}",
                f"{row['parameters']:,}",
            ]
            print("| " + " | ".join([backbone, variant, *cells]) + " |", flush=True)
    hours = sum(row["seconds_an_epoch"] for row in rows) * epochs / 3600
    print(f"{epochs} epochs of each: {hours:.1f} h, validation not counted")
    if json:
        flat = [
            {"what": f"{row['backbone']} {row['variant']}: {what}", "value": row[key], "unit": unit}
            for row in rows
            for what, key, unit in (("a step", "ms_a_step", "ms"), ("an epoch", "seconds_an_epoch", "s"))
        ]
        save(json, result(json.stem, flat, rows[0]["device"], details=rows))


def timed(shared: Shared, key: Key, steps: int) -> dict[str, Any]:
    """One row: a step's time, the steps of an epoch, the model's size."""
    options = {
        **{"trainer.max_epochs": -1, "trainer.max_steps": steps + WARM_UP + 1, "trainer.logger": False},
        **{"trainer.limit_val_batches": 0, "trainer.num_sanity_val_steps": 0},
        **{"trainer.callbacks": f"{__name__}.StepTimer", "trainer.enable_checkpointing": False},
        "trainer.enable_progress_bar": False,
    }
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
        settings = {**shared.settings, **options, "trainer.default_root_dir": scratch}
        cli = run(fit_words(shared, key, settings, VARIANTS[key.variant]))
    (timer,) = (one for one in cli.trainer.callbacks if type(one).__name__ == "StepTimer")
    step, count = timer.seconds(), len(cli.datamodule.train_dataloader())
    return {
        "backbone": key.backbone,
        "variant": key.variant,
        "ms_a_step": round(1000 * step, 1),
        "seconds_an_epoch": round(step * count, 3),
        "parameters": sum(weight.numel() for weight in cli.model.parameters()),
        "device": str(cli.trainer.strategy.root_device),
    }
