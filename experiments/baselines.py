"""Choose the settings of the cheap baselines on validation, test each once, and keep one JSON each.

    python experiments/baselines.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --out experiments/results/baselines

Settings are searched one at a time, in the order of the grid and from its first values, by validation MRR@20;
every trial is kept in the JSON. The chosen ones are tested once, by the code that tests neural models. The
JSON has the form of compare.py's, so experiments/table.py reads it; a baseline whose JSON exists is not
repeated, nor is a trial of one that was stopped: they are under OUT/trials until then.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ranks
import torch
from compare import HERE, RankRecorder, keep
from compare_views import data_module
from lightning.pytorch import LightningDataModule, Trainer

from llm4sbr.baselines import Baseline, BaselineModule, ItemKNN, Popularity, SessionKNN

Settings = dict[str, Any]
CHOSEN_BY, TOLD = "mrr@20", ("mrr@20", "recall@20")

# Name: model, what is fixed, and the values of each setting, the one to start from first.
GRIDS: dict[str, tuple[Callable[..., Baseline], Settings, dict[str, list[Any]]]] = {
    "pop": (Popularity, {}, {"remind": [True, False]}),
    "s-pop": (Popularity, {"within_session": True}, {}),
    "item-knn": (
        ItemKNN,
        {},
        {
            "remind": [True, False],
            "weighting": ["last", "linear", "quadratic", "harmonic"],
            "regularization": [20.0, 0.0, 5.0, 80.0],
            "alpha": [0.5, 0.25, 0.75, 1.0],
            "neighbors": [100, 500],
        },
    ),
    "sequential-rules": (
        ItemKNN,
        {"order": "later"},
        {
            "remind": [True, False],
            "pair_decay": ["harmonic", "quadratic", "linear", "uniform"],
            "weighting": ["last", "linear", "quadratic", "harmonic"],
            "alpha": [1.0, 0.75, 0.5],
            "regularization": [0.0, 5.0, 20.0],
            "neighbors": [100, 500],
        },
    ),
    "sknn": (
        SessionKNN,
        {},
        {"remind": [True, False], "k": [500, 50, 100, 200, 1000], "sample_size": [1000, 500, 2500, 0]},
    ),
    "v-sknn": (
        SessionKNN,
        {"similarity": "dot"},
        {
            "remind": [True, False],
            "weighting": ["linear", "quadratic", "log", "harmonic"],
            "score_weighting": ["uniform", "linear", "quadratic", "harmonic"],
            "idf": [0.0, 1.0, 5.0, 10.0],
            "k": [500, 100, 200, 1000],
            "sample_size": [1000, 500, 2500],
        },
    ),
    "vstan": (
        SessionKNN,
        {"weighting": "exponential"},
        {
            "remind": [True, False],
            "score_weighting": ["exponential", "uniform"],
            "item_horizon": [2.0, 1.0, 4.0, None],
            "horizon": [2.0, 1.0, 4.0],
            "idf": [0.0, 1.0, 5.0, 10.0],
            "k": [500, 100, 200, 1000],
            "sample_size": [1000, 500, 2500],
        },
    ),
}


def evaluate(stage: str, baseline: Baseline, data: LightningDataModule, **options: Any) -> dict[str, float]:
    """Metrics of one stage, `validate` or `test`."""
    idle = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", **{"logger": False, **idle, **options})
    (measured,) = getattr(trainer, stage)(BaselineModule(baseline), data, verbose=False)
    return dict(measured)


def search(name: str, data: LightningDataModule, kept: Path) -> tuple[Settings, list[dict[str, Any]]]:
    """The best settings found on validation, and every trial; a stopped search's are in the file `kept`."""
    make, fixed, grid = GRIDS[name]
    best = {**fixed, **{setting: values[0] for setting, values in grid.items()}}
    done: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    trials: list[dict[str, Any]] = []

    def trial(settings: Settings) -> float:
        found = next((one for one in done if one["settings"] == settings), None)
        if found is None:
            measured = evaluate("validate", make(**settings), data)
            found = {"settings": settings, **{metric: round(measured[f"val/{metric}"], 5) for metric in TOLD}}
            done.append(found)
            keep(kept, done)
            print(name, json.dumps(found), flush=True)
        trials.append(found)
        return float(found[CHOSEN_BY])

    reached = trial(best)
    for setting, values in grid.items():
        for value in values[1:]:
            candidate = {**best, setting: value}  # a tie changes nothing
            if (found := trial(candidate)) > reached:
                best, reached = candidate, found
    return best, trials


def one_baseline(args: argparse.Namespace, name: str, data: LightningDataModule) -> None:
    """Search, test once, write the JSON."""
    target = args.out / f"{name}-bare-0.json"
    if target.exists():
        print(f"{target} is there already")
        return
    kept = args.out / "trials" / f"{name}.json"
    settings, trials = search(name, data, kept)
    baseline = GRIDS[name][0](**settings)
    began = time.perf_counter()
    baseline.fit(data.examples("train"), data.num_items)
    fit_seconds = time.perf_counter() - began
    recorder = RankRecorder()
    tested = evaluate("test", baseline, data, callbacks=[recorder])
    chosen = next(one for one in trials if one["settings"] == settings)
    result = {
        "backbone": name,
        "variant": "bare",
        "seed": 0,
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "device": "cpu",
        "versions": {part: version(part) for part in ("llm4sbr", "torch", "lightning", "torch-geometric")},
        "epochs": 0,
        "best_epoch": -1,  # nothing is trained; the table shows 0 epochs
        "best_validation": chosen["mrr@20"],
        "fit_seconds": round(fit_seconds, 1),
        "test": {metric: round(value, 5) for metric, value in tested.items()},
        **ranks.pack(np.concatenate(recorder.ranks), data.examples("test").session),
        "settings": settings,
        "trials": trials,
    }
    keep(target, result)
    kept.unlink(missing_ok=True)
    print(target, json.dumps(settings), json.dumps(result["test"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--baselines", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "baselines")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning.pytorch")  # few workers, no logger: both meant
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = data_module(args.data, args.data_dir)
    data.session_graph = False  # no baseline reads it
    for name in args.baselines:
        one_baseline(args, name, data)


if __name__ == "__main__":
    main()
