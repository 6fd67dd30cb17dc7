"""The golden runs' command line: a `fit` of its own, and `test` and `predict` of what another run trained."""

from __future__ import annotations

import csv
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_of_runs import data_options, hex_of
from models_of_runs import Description, model_words

# Without heads that have weights: here nothing fills these, and the order of their making would count.
BARE: Description = {
    "backbone": "SRGNN", "wrapped": False, "rules": 0.7, "score_scale": 12.0, "label_smoothing": 0.1,
    "session_dropout": 0.3, "lr_schedule": "cosine",
}  # fmt: skip
WRAPPED: Description = {"backbone": "GRU4Rec", "wrapped": True, "rules": 0.7, "view_dropout": 0.3}
TRAINED = ("SRGNN wrapped, all heads", "SRGNN bare, all options")


def llm4sbr(*words: str) -> None:
    """Run ``python -m llm4sbr`` in this process."""
    before, sys.argv = sys.argv, ["llm4sbr", *words]
    try:
        runpy.run_module("llm4sbr", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"llm4sbr {' '.join(words)} ended with {ended.code}") from ended
    finally:
        sys.argv = before


def command_line(
    folder: Path, store: Path, root: Path, runs: dict[str, Any], predictions: Callable[[Path], Any]
) -> dict[str, Any]:
    """Everything that is kept of the command line.

    Args:
        folder: Of the shop.
        store: Of the views.
        root: Where ``whole.ckpt`` of the run number n is in the folder ``n``.
        runs: Models, data and views of the other runs.
        predictions: Reads a file of recommendations.
    """
    here, found = Path.cwd(), {}
    os.chdir(root)
    try:
        for name, description, of_views in (
            ("fit bare", BARE, None),
            ("fit wrapped", WRAPPED, {"spec": "llm", "fallback": "titles"}),
        ):
            words = _words(description, folder, store, root / name, {"bucket": 2}, of_views)
            llm4sbr("fit", *words, "--trainer.max_epochs", "2")
            (checkpoint,) = (root / name).rglob("epoch=*.ckpt")
            found[name] = _evaluate(words, root / name, checkpoint, predictions)
        for name in TRAINED:
            description, of_data, of_views = runs[name]
            words = _words(description, folder, store, root / name, of_data, of_views)
            checkpoint = root / str(list(runs).index(name)) / "whole.ckpt"
            found[f"evaluate {name}"] = _evaluate(words, root / name, checkpoint, predictions)
    finally:
        os.chdir(here)
    return found


def _words(
    description: Description,
    folder: Path,
    store: Path,
    out: Path,
    of_data: dict[str, Any],
    of_views: dict[str, Any] | None,
) -> list[str]:
    words = ["--seed_everything", "5", "--data", "SessionDataModule", "--data.split.by", "column"]
    for option, value in data_options(folder, **of_data).items():
        words += [f"--data.{option}", str(value)]
    for option, value in ({} if of_views is None else {"store": store, **of_views}).items():
        words += [f"--views.{option}", str(value)]
    csv_logger = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    plain = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.log_every_n_steps", "1"]
    return [*words, *model_words(description), *csv_logger, str(out), *quiet, *plain]


def _evaluate(
    words: list[str], out: Path, checkpoint: Path, predictions: Callable[[Path], Any]
) -> dict[str, Any]:
    """Test and predict with a checkpoint; what is logged there and, before it, by a fit."""
    llm4sbr("test", *words, "--ckpt_path", str(checkpoint))
    llm4sbr("predict", *words, "--ckpt_path", str(checkpoint), "--output", str(out / "next.parquet"))
    logged: dict[str, list[str]] = {}
    for file in sorted(out.rglob("metrics.csv")):
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and "/" in name and not name.startswith("throughput/"):
                        logged.setdefault(name, []).append(hex_of(float(value)))
    return {"logged": logged, "predictions": predictions(out / "next.parquet")}
