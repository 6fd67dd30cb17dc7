"""A fit: one ``llm4sbr fit`` in this process, tested once, with its result saved in a study."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.benchmarks.results import machine
from experiments.study.results import Study
from experiments.study.rows import Key, Run
from experiments.study.settings import Settings, plain_words, words
from experiments.study.stopped import stopped_run
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.report.history import read_history
from llm4sbr.runs.resume import resumed
from llm4sbr.runs.trainer_cli import SBRCLI, run

BASE = Path(
    os.path.relpath(Path(__file__).parents[1] / "base.yaml")
)  # a short path, since results contain the command
VARIANTS: dict[str, Settings | None] = {  # views of a fit, and the fallback for sessions without
    "bare": None,
    "titles": {"views_spec": "titles", "views_fallback": "mask"},
    "llm": {"views_spec": "llm", "views_fallback": "mask"},
    "llm+titles": {"views_spec": "llm", "views_fallback": "titles"},
    "no-views": {},  # wrapped without views: the effect of the architecture alone
}
SHOWN = ("train/rec_loss", "train/loss", "val/recall@20", "val/mrr@20", "val/ndcg@20")  # in the history
PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric")


@dataclass(frozen=True)
class Shared:
    """Options that the fits of a command share.

    Args:
        data: Data module YAML.
        data_dir: Folder of the data; by default that of the YAML.
        store: Folder of the view store.
        settings: Settings of every fit.
    """

    data: str
    data_dir: str | None = None
    store: str = "views/beauty"
    settings: Mapping[str, Any] = field(default_factory=dict)


class RankRecorder(Callback):
    """Records the rank of every test example, in example order, for paired comparisons."""

    def __init__(self) -> None:
        self.ranks: list[np.ndarray] = []

    def on_test_batch_end(
        self, trainer: Trainer, model: LightningModule, outputs: object, batch: SessionBatch, *_: object
    ) -> None:
        """Record the ranks of a batch."""
        self.ranks.append(target_ranks(model(batch), batch.target).cpu().numpy())


def check_variants(variants: list[str]) -> None:
    """Refuse a variant that does not exist."""
    if unknown := sorted(set(variants) - set(VARIANTS)):
        raise InputError(
            "there is no such variant", value=unknown, hint=f"Variants are {', '.join(VARIANTS)}"
        )


def fit_words(shared: Shared, key: Key, settings: Settings, views: Settings | None) -> list[str]:
    """Return the words of a fit for the command line; `views` is None for a bare model."""
    module = "llm4sbr.SBRModule" if views is None else "llm4sbr.LLM4SBRWrapper"
    found = ["fit", "--config", str(BASE), "--model", module, "--data", shared.data]
    found += ["--model.backbone", key.backbone, "--seed_everything", str(key.seed)]
    if shared.data_dir:
        found += ["--data.data_dir", shared.data_dir]
    if views:
        found += plain_words({"views_store": shared.store, **views})
    if not sys.stdout.isatty():
        found += ["--trainer.enable_progress_bar", "false"]
    return found + words(settings, wrapped=views is not None)


def fit_once(
    study: Study, shared: Shared, key: Key, settings: Settings, views: Settings | None, *, test: bool = True
) -> bool:
    """Run a fit, unless it is saved already or another process runs it; return whether it ran."""
    try:
        with study.claim(key):
            if key in study.kept():
                print(f"{study.path}: {key} is there already")
                return False
            fit(study, shared, key, settings, views, test=test)
            return True
    except Timeout:
        print(f"{study.path}: another process runs {key}")
        return False


def fit(
    study: Study, shared: Shared, key: Key, settings: Settings, views: Settings | None, *, test: bool
) -> Run:
    """Fit, test the chosen epoch, and keep the result; a fit that was stopped resumes from its checkpoint.

    Args:
        study: Study that saves the result.
        shared: Options of all fits.
        key: Key of the fit.
        settings: All settings, including those of `shared`.
        views: Settings of the views of a wrapped model; None for a bare one.
        test: Whether to test the model; False does not read the test split.
    """
    given = fit_words(shared, key, settings, views)
    # One folder per fit: parallel processes in one folder could choose the same version number.
    given += ["--trainer.logger.init_args.name", f"{study.name}/{key}"]
    began = time.perf_counter()
    stopped = stopped_run(study.work / str(key), given)
    cli = run(given) if stopped is None else resumed(stopped)
    seconds = time.perf_counter() - began
    best = cli.trainer.checkpoint_callback
    result: Run = {
        **key._asdict(),
        "settings": settings,
        "command": "llm4sbr " + shlex.join(given),
        "parameters": sum(weight.numel() for weight in cli.model.parameters()),
        "date": date.today().isoformat(),
        "machine": machine(),
        "device": str(cli.trainer.strategy.root_device),
        "versions": {name: version(name) for name in PACKAGES},
        "epochs": cli.trainer.current_epoch,
        "best_epoch": int(Path(best.best_model_path).stem.split("-")[1]),
        "best_validation": round(float(best.best_model_score), 5),
        "fit_seconds": round(seconds, 1),  # of the last piece
        "history": history(Path(cli.trainer.log_dir) / "metrics.csv"),
        "log_dir": cli.trainer.log_dir,
        **(measure(cli) if test else {}),
    }
    study.add(result)
    metrics = result.get("test", {"validation": result["best_validation"]})
    print(f"{study.path}: {key}", json.dumps(metrics), flush=True)
    return result


def history(path: Path) -> list[dict[str, float]]:
    """Read training loss and validation metrics of each epoch; empty without a CSV log."""
    return [{name: round(row[name], 5) for name in SHOWN if name in row} for row in read_history(path)]


def measure(cli: SBRCLI) -> Run:
    """Test the chosen epoch, and return metrics and the rank of every test example."""
    recorder = RankRecorder()
    cli.trainer.callbacks.append(recorder)
    best = cli.trainer.checkpoint_callback.best_model_path
    with torch.random.fork_rng():
        (tested,) = cli.trainer.test(
            cli.model, cli.datamodule, ckpt_path=best, verbose=False, weights_only=True
        )
    return {
        "test": {name: round(value, 5) for name, value in tested.items()},
        "ranks": np.concatenate(recorder.ranks),
        "session": cli.datamodule.examples("test").session,
    }
