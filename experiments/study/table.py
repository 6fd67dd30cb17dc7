"""Table of the studies of a data set: means over seeds, lifts and paired bootstrap intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.results import result, save
from experiments.study.lifts import LIFTED, METRICS, Groups, grouped, lift, plain, tell
from experiments.study.results import Study
from experiments.study.rows import Run
from llm4sbr.contracts.errors import InputError

TARGET = 0.187  # target of the average lift of Recall@20


def table(
    studies: list[Path],
    baseline: str = "bare",
    against: str | None = None,
    over_plain: bool = False,
    json: Path | None = None,
) -> None:
    """Print means over seeds, lifts and intervals of the studies of a data set.

    The difference between a variant and the baseline, by default the bare backbone, is computed per example
    and averaged over the shared seeds. Sessions are resampled 2,000 times for a 95 % interval. The JSON has a
    second interval, which resamples the seeds, too.

    Example::

        python -m experiments table --studies '[experiments/results/protocol-beauty.parquet,
            experiments/results/baselines.parquet]' --json experiments/results/protocol-beauty.json

    Args:
        studies: Results files; the first gives the table its name.
        baseline: Variant that lifts are relative to.
        against: Model that all lifts are relative to, such as ``sequential-rules``; by default each backbone
            has its own baseline.
        over_plain: Whether the lifts of models with rules or repeat-explore are over models without.
        json: File for the results.
    """
    runs = [run for path in studies for run in Study(path).tested()]
    if not runs:
        raise InputError("nothing was tested in this study", path=studies[0])
    groups = grouped(runs)
    rows = []
    lifts = [f"lift of {metric}" for metric in LIFTED]
    print("| " + " | ".join(["backbone", "variant", "seeds", *METRICS, *lifts, "epochs", "min a fit"]) + " |")
    print("|---|---|---|" + "---|" * (len(METRICS) + len(LIFTED)) + "---|---|")
    for (name, variant), by_seed in groups.items():
        compared_with = against or (plain(name) if over_plain else name)
        base = (
            None
            if (name, variant) == (compared_with, baseline)
            else groups.get((compared_with, baseline), {})
        )
        if base and against and len(base) == 1:  # a count-based baseline has one run for all seeds
            base = dict.fromkeys(by_seed, *base.values())
        row = measured(name, variant, by_seed)
        row["lift"] = {} if base is None else {metric: lift(base, by_seed, metric) for metric in LIFTED}
        rows.append(row)
        cells = [_spread(row[metric]) for metric in METRICS]
        cells += [tell(row["lift"].get(metric)) for metric in LIFTED]
        cells += [", ".join(str(run["best_epoch"] + 1) for run in by_seed.values())]
        cells += ["–" if row["fit_minutes"] is None else f"{row['fit_minutes']:.1f}"]
        print("| " + " | ".join([name, variant, str(len(by_seed)), *cells]) + " |")
    if json:
        over = " ".join(
            part for part in (against or ("itself alone" if over_plain else ""), baseline) if part
        )
        first = {key: runs[0][key] for key in ("date", "machine", "device", "versions")}
        save(json, result(studies[0].stem, flat(rows, over), details=rows) | first)


def measured(name: str, variant: str, by_seed: dict[int, Run]) -> dict[str, Any]:
    """Return means and standard deviations of a model's metrics, in %."""
    row: dict[str, Any] = {"backbone": name, "variant": variant, "seeds": sorted(by_seed)}
    for metric in METRICS:
        values = np.array([100 * run["test"][f"test/{metric}"] for run in by_seed.values()])
        spread = round(values.std(ddof=1), 4) if len(values) > 1 else None
        row[metric] = {"mean": round(values.mean(), 4), "std": spread}
    seconds = [run["fit_seconds"] for run in by_seed.values() if "fit_seconds" in run]
    row["fit_minutes"] = round(float(np.mean(seconds)) / 60, 2) if seconds else None
    return row


def flat(rows: list[dict[str, Any]], over: str) -> list[dict[str, Any]]:
    """Put the rows into the common format of all results."""
    found: list[dict[str, Any]] = []
    for row in rows:
        name, seeds = f"{row['backbone']} {row['variant']}", f"seeds {row['seeds']}"
        for metric in METRICS:
            spread = row[metric]["std"]
            note = seeds + ("" if spread is None else f", standard deviation {spread}")
            found.append(
                {"what": f"{name}: {metric}", "value": row[metric]["mean"], "unit": "%", "note": note}
            )
        for metric, one in row["lift"].items():
            if one is None:
                continue
            low = one["interval"][0] if one["interval"] else 0.0
            main = metric == "recall@20"
            target = {"target": TARGET if main else 0.0, "better": "higher"}
            target["met"] = one["relative"] >= TARGET if main else low > 0
            note = f"seeds {one['seeds']}, 95 % interval {one['interval']}"
            what = {
                "what": f"{name}: lift of {metric} over {over}",
                "value": one["relative"],
                "unit": "relative",
            }
            found.append(what | target | {"note": note})
    return found


def pairs(groups: Groups, baseline: str) -> list[tuple[str, str, dict[int, Run], dict[int, Run]]]:
    """Return model, variant, fits of its baseline and own fits, for all models that share a seed with it."""
    found = []
    for (name, variant), ours in groups.items():
        base = groups.get((name, baseline), {})
        if variant != baseline and set(base) & set(ours):
            found.append((name, variant, base, ours))
    return found


def _spread(one: dict[str, Any]) -> str:
    return f"{one['mean']:.2f}" + ("" if one["std"] is None else f" ± {one['std']:.2f}")
