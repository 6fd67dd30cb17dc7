"""Count-based baselines: settings chosen by validation, each baseline tested once."""

from __future__ import annotations

import json
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer

from experiments.benchmarks.results import command_line, machine
from experiments.study.data import data_module, quiet_lightning
from experiments.study.fits import PACKAGES, RankRecorder
from experiments.study.grids import GRIDS
from experiments.study.results import Study
from experiments.study.rows import Key, Run
from experiments.study.settings import Settings
from llm4sbr.baselines import Baseline, BaselineModule
from llm4sbr.contracts.errors import InputError

CHOSEN_BY, SHOWN = "mrr@20", ("mrr@20", "recall@20")


def baselines(data: str, out: Path, data_dir: str | None = None, names: list[str] | None = None) -> None:
    """Choose the settings of the count-based baselines by validation, and test each baseline once.

    The search changes one setting at a time, in the order of the grid (study/grids.py) and from its first
    values, by validation MRR@20; every trial is saved. The chosen settings are tested once, by the code that
    tests neural models. Saved baselines and saved trials are not repeated.

    Example::

        python -m experiments baselines --data experiments/data/beauty.yaml
            --out experiments/results/baselines.parquet

    Args:
        data: Data module YAML.
        out: Results file.
        data_dir: Folder of the data; by default that of the YAML.
        names: Names among pop, s-pop, item-knn, sequential-rules, sknn, v-sknn and vstan; all by default.
    """
    if unknown := sorted(set(names or ()) - set(GRIDS)):
        raise InputError("there is no such baseline", value=unknown, hint=f"There are {', '.join(GRIDS)}")
    quiet_lightning()
    module = data_module(data, data_dir)
    module.session_graph = False  # no baseline reads it
    for name in names or GRIDS:
        one(Study(out), name, module)


def one(study: Study, name: str, data: LightningDataModule) -> None:
    """Search the settings of a baseline, test it once and save the result."""
    key = Key(name, "bare", 0)
    if key in study.kept():
        print(f"{study.path}: {name} is there already")
        return
    chosen = tune(study, name, data)
    baseline = GRIDS[name].make(**chosen["settings"])
    began = time.perf_counter()
    baseline.fit(data.examples("train"), data.num_items)
    seconds = time.perf_counter() - began
    recorder = RankRecorder()
    tested = evaluate("test", baseline, data, callbacks=[recorder])
    result: Run = {
        **key._asdict(),
        "settings": chosen["settings"],
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "device": "cpu",
        "versions": {part: version(part) for part in PACKAGES},
        "epochs": 0,
        "best_epoch": -1,  # no training: the table shows 0 epochs
        "best_validation": chosen["best_validation"],
        "fit_seconds": round(seconds, 1),
        "test": {metric: round(value, 5) for metric, value in tested.items()},
        "ranks": np.concatenate(recorder.ranks),
        "session": data.examples("test").session,
    }
    study.add(result)
    print(f"{study.path}: {name}", json.dumps(chosen["settings"]), json.dumps(result["test"]), flush=True)


def tune(study: Study, name: str, data: LightningDataModule) -> Run:
    """Return the best trial by validation; saved trials of a stopped search are not repeated."""
    grid = GRIDS[name]
    kept = (
        [run for run in study.runs() if run["backbone"] == name and "trial" in run] if study.exists() else []
    )

    def trial(settings: Settings) -> Run:
        found = next((run for run in kept if run["settings"] == settings), None)
        if found is None:
            measured = evaluate("validate", grid.make(**settings), data)
            history = {f"val/{metric}": round(measured[f"val/{metric}"], 5) for metric in SHOWN}
            found = {**Key(name, "bare", 0, len(kept))._asdict(), "settings": settings, "history": [history]}
            found["best_validation"] = history[f"val/{CHOSEN_BY}"]
            study.add(found)
            kept.append(found)
            print(name, json.dumps(settings), json.dumps(history), flush=True)
        return found

    best = trial({**grid.fixed, **{setting: values[0] for setting, values in grid.values.items()}})
    for setting, values in grid.values.items():
        for value in values[1:]:
            candidate = trial({**best["settings"], setting: value})
            if candidate["best_validation"] > best["best_validation"]:  # the first of equal trials wins
                best = candidate
    return best


def evaluate(stage: str, baseline: Baseline, data: LightningDataModule, **options: Any) -> dict[str, float]:
    """Return the metrics of a stage, `validate` or `test`."""
    idle = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", **{"logger": False, **idle, **options})
    (measured,) = getattr(trainer, stage)(BaselineModule(baseline), data, verbose=False)
    return dict(measured)
