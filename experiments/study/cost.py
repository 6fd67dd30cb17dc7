"""Time of a training step of each backbone on this machine, and of the whole protocol."""

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

WARM_UP = 5  # first steps, without timing


class StepTimer(Callback):
    """Measures the seconds of each training step, from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the end of the step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the mean time of a step; batches differ in length, so the median would mislead."""
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
    """Measure a training step of bare and wrapped backbones, and print the time of the whole protocol.

    Each model trains for some steps by ``llm4sbr fit`` on the given data. Times are means over the steps,
    data loading included. Only the figures are saved.

    Example::

        python -m experiments cost --data experiments/data/beauty.yaml --store views/beauty --steps 50
            --json experiments/results/cost-beauty.json

    Args:
        data: Data module YAML.
        data_dir: Folder of the data; by default that of the YAML.
        backbones: Registered names of the backbones; all by default.
        variants: Variants among bare, titles, llm, llm+titles and no-views; the first two by default.
        steps: Number of steps to measure.
        epochs: Number of epochs of all fits of a model together, for the total time.
        store: Folder of the view store.
        settings: Settings of every fit (see compare).
        json: File for the results.
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
    """Make a row: time of a step, time of an epoch, and size of the model."""
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
