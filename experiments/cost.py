"""Measure a training step of backbones bare and wrapped, and say what the protocol costs on this machine.

    python experiments/cost.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --variants bare titles --store views/beauty --json experiments/results/cost-beauty.json

Each is trained for some steps by ``llm4sbr fit``, by name, on the given data; all backbones by default. Times
are means over the steps, data loading included. Nothing is kept but the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import compare
import torch
from benchmarks.results import write
from lightning.pytorch import Callback

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
        """Mean of a step: with batches of like length a median one says little."""
        return (self.ends[-1] - self.ends[WARM_UP]) / (len(self.ends) - 1 - WARM_UP)


def timed(args: argparse.Namespace, backbone: str, variant: str) -> dict[str, Any]:
    """One row: a step's time, the steps of an epoch, the model's size."""
    options = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(args.steps + WARM_UP + 1)]
    options += ["--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0"]
    options += ["--trainer.logger", "false", "--trainer.callbacks", "cost.StepTimer"]
    options += ["--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false"]
    given = compare.fit_options(args, backbone, variant, 0)
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
        cli = run([*given, *options, "--trainer.default_root_dir", scratch])
    (timer,) = (one for one in cli.trainer.callbacks if type(one).__name__ == "StepTimer")
    step, steps = timer.seconds(), len(cli.datamodule.train_dataloader())
    return {
        "backbone": backbone,
        "variant": variant,
        "ms_a_step": round(1000 * step, 1),
        "seconds_an_epoch": round(step * steps, 3),
        "parameters": sum(weight.numel() for weight in cli.model.parameters()),
        "device": str(cli.trainer.strategy.root_device),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = sorted(path.stem for path in (compare.HERE / "backbone").glob("*.yaml"))
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--backbones", nargs="+", default=every, choices=every)
    parser.add_argument("--variants", nargs="+", default=["bare", "titles"], choices=sorted(compare.VARIANTS))
    parser.add_argument("--steps", type=int, default=30, help="steps to measure")
    parser.add_argument("--epochs", type=int, default=30, help="of all the fits of one model together")
    parser.add_argument("--store", default="views/beauty", help="folder that `llm4sbr views infer` wrote")
    parser.add_argument("--options", default="", help="further words for every `llm4sbr fit`")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.out, args.quiet = Path("cost"), True
    rows: list[dict[str, Any]] = []
    print("| backbone | variant | ms a step | s an epoch | over bare | weights |\n|---|---|---|---|---|---|")
    for backbone in args.backbones:
        for variant in args.variants:
            row = timed(args, backbone, variant)
            bare = [one for one in rows if one["backbone"] == backbone and one["variant"] == "bare"]
            over = row["ms_a_step"] / bare[0]["ms_a_step"] if bare else None
            row["over_bare"] = None if over is None else round(over, 2)
            rows.append(row)
            cells = [f"{row['ms_a_step']:.0f}", f"{row['seconds_an_epoch']:.0f}"]
            cells += ["–" if over is None else f"{over:.2f}", f"{row['parameters']:,}"]
            print("| " + " | ".join([backbone, variant, *cells]) + " |", flush=True)
    hours = sum(row["seconds_an_epoch"] for row in rows) * args.epochs / 3600
    print(f"{args.epochs} epochs of each: {hours:.1f} h, validation not counted")
    if args.json:
        flat = [
            {"what": f"{row['backbone']} {row['variant']}: {what}", "value": row[key], "unit": unit}
            for row in rows
            for what, key, unit in (("a step", "ms_a_step", "ms"), ("an epoch", "seconds_an_epoch", "s"))
        ]
        write(args.json.stem, flat, args.json, rows[0]["device"], details=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
