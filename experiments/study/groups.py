"""Effect of wrapping by groups of test examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.results import result, save
from experiments.study.data import data_module
from experiments.study.intervals import FloatArray, gains, interval
from experiments.study.kinds import Groups, kinds
from experiments.study.lifts import LIFTED, grouped, model
from experiments.study.results import Study
from experiments.study.rows import Run
from experiments.study.table import pairs
from llm4sbr.contracts.errors import InputError
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore


def groups(
    studies: list[Path],
    data: str,
    data_dir: str | None = None,
    store: str | None = None,
    variant: str = "titles",
    baseline: str = "bare",
    beside: list[str] | None = None,
    metric: str = "recall@20",
    json: Path | None = None,
) -> None:
    """Print the effect of wrapping by groups of test examples; nothing is trained.

    The saved ranks are grouped by the frequency of the next item in training, by whether the step to it
    occurs in training, by the nearness of its title, and by the length of the session. The models are the
    backbones that have both variants, over the shared seeds; each backbone has the same weight. Intervals are
    paired bootstraps over the test sessions.

    Example::

        python -m experiments groups --studies '[experiments/results/protocol-beauty.parquet,
            experiments/results/baselines.parquet]' --data experiments/data/beauty.yaml --store views/beauty
            --json experiments/results/groups-beauty.json

    Args:
        studies: Results files of one data set: tested models and baselines.
        data: Data module YAML of the results.
        data_dir: Folder of the data; by default that of the YAML.
        store: Folder of a view store, for the nearness of titles.
        variant: Name of the wrapped variant.
        baseline: Variant that differences are relative to.
        beside: Baselines in further columns; sequential rules by default.
        metric: Metric of the table; the JSON has all metrics.
        json: File for the results.
    """
    shown = ["sequential-rules"] if beside is None else beside
    module = data_module(data, data_dir)
    titles = None
    if store:
        with ViewStore(store) as views:
            titles = load_view_table(views, module, "titles").table.table.titles
    test = module.examples("test")
    runs = [run for path in studies for run in Study(path).tested()]
    for run in runs:
        if "ranks" in run and len(run["ranks"]) != len(test):
            raise InputError(
                f"{model(run)} {run['variant']} was tested on {len(run['ranks'])} examples, not {len(test)}",
                hint="Give the data of the results",
            )
    divided = {"all": {"": np.ones(len(test), bool)}}
    divided |= kinds(module.examples("train"), test, module.catalogue, titles)
    found = [
        row for one in LIFTED for row in rows(runs, divided, test.session, one, baseline, variant, shown)
    ]
    _print(
        [row for row in found if row["metric"] == metric and row["examples"]],
        metric,
        baseline,
        variant,
        shown,
    )
    if json:
        save(json, result(json.stem, [_flat(row) for row in found if row["examples"]], details=found))


def rows(
    runs: list[Run],
    divided: dict[str, Groups],
    session: np.ndarray,
    metric: str,
    baseline: str,
    variant: str,
    beside: list[str],
) -> list[dict[str, Any]]:
    """Make a row for each group of examples."""
    models = {}
    for name, own, base, ours in pairs(grouped(runs), baseline):
        if own == variant:
            shared = sorted(set(base) & set(ours))
            models[name] = [
                np.mean([_earned(one[seed], metric) for seed in shared], axis=0) for one in (base, ours)
            ]
    if not models:
        raise InputError(f"no backbone has both {baseline} and {variant}")
    before, after = (np.mean([pair[n] for pair in models.values()], axis=0) for n in (0, 1))
    others = {run["backbone"]: _earned(run, metric) for run in runs if run["backbone"] in beside}
    found = []
    for by, groups_ in divided.items():
        for name, where in groups_.items():
            row: dict[str, Any] = {"by": by, "group": name, "metric": metric, "examples": int(where.sum())}
            row["backbones"] = list(models)
            if where.any():
                row |= compared(before[where], after[where], session[where])
                row["beside"] = {n: round(100 * float(one[where].mean()), 2) for n, one in others.items()}
            found.append(row)
    return found


def compared(base: FloatArray, ours: FloatArray, session: np.ndarray) -> dict[str, Any]:
    """Return the means in %, the difference in percentage points with its interval, and the lift."""
    low, high = interval(ours - base, session)
    before, after = float(base.mean()), float(ours.mean())
    return {
        "baseline": round(100 * before, 2),
        "wrapped": round(100 * after, 2),
        "difference": round(100 * (after - before), 2),
        "interval": [round(100 * low, 2), round(100 * high, 2)],
        "lift": round(after / before - 1, 4) if before > 0 else None,
    }


def _earned(run: Run, metric: str) -> FloatArray:
    if "ranks" not in run:
        raise InputError("this result has no ranks", value=f"{model(run)} {run['variant']}")
    return gains(run["ranks"], metric)


def _print(found: list[dict[str, Any]], metric: str, baseline: str, variant: str, beside: list[str]) -> None:
    print(f"{metric}, in %; mean over {', '.join(found[0]['backbones'])}")
    head = ["examples by", "", "number", baseline, variant, "difference", "lift", *beside]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in found:
        cells = [
            row["by"],
            row["group"],
            f"{row['examples']:,}",
            f"{row['baseline']:.2f}",
            f"{row['wrapped']:.2f}",
        ]
        cells.append("{:+.2f} [{:+.2f}, {:+.2f}]".format(row["difference"], *row["interval"]))
        cells.append("–" if row["lift"] is None else f"{row['lift']:+.1%}")
        cells += [f"{row['beside'][name]:.2f}" if name in row["beside"] else "–" for name in beside]
        print("| " + " | ".join(cells) + " |")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": " ".join(part for part in (row["metric"], row["by"], row["group"], "difference") if part),
        "value": row["difference"],
        "unit": "percentage points",
        "note": f"95 % interval {row['interval']}, {row['examples']} examples",
    }
