"""Table of known, predicted and absent views: what each path brings, and what predictions keep of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.results import keep, row
from experiments.study.intervals import FloatArray, gains, interval
from experiments.study.lifts import METRICS
from experiments.study.results import Study
from experiments.study.rows import Run

BARE, WITHOUT = "bare", "without a predictor"
PATHS = ("known", "predicted", "absent")
TARGET = 0.9  # share of the lift that predictions keep
_Row = dict[str, Any]


def report(study: Study, variant: str, json: Path | None) -> None:
    """Print the table, and write it to a file if one is given."""
    keep("paths", rows(study.tested(), variant), json)


def rows(runs: Iterable[Run], variant: str) -> list[_Row]:
    """Rows of all metrics, over the seeds that every model and path has.

    Intervals are bootstrap intervals of paired differences over whole sessions.

    Args:
        runs: Tested fits of one study.
        variant: Views of the wrapped models.
    """
    found: dict[str, dict[int, Run]] = {name: {} for name in (BARE, WITHOUT, *PATHS)}
    for run in runs:
        name = BARE if run["variant"] == BARE else run.get("what") if run["variant"] == variant else None
        if name in found:
            found[name][run["seed"]] = run
    seeds = sorted(set.intersection(*(set(one) for one in found.values())))
    if not seeds:
        return []
    session = found[BARE][seeds[0]]["session"]
    made: list[_Row] = []
    for metric in METRICS:
        earned = {
            name: np.stack([gains(one[seed]["ranks"], metric) for seed in seeds])
            for name, one in found.items()
        }
        made += _of_metric(metric, earned, session, f"{len(seeds)} seeds, {len(session)} test examples")
    for name in [name for name in found["known"][seeds[0]] if name.startswith("cosine/")]:
        cosine = float(np.mean([found["known"][seed][name] for seed in seeds]))
        made.append(row(f"cosine of predicted and known views, view {name[7:]}", cosine, "cosine"))
    return made


def _of_metric(metric: str, earned: dict[str, FloatArray], session: Any, note: str) -> list[_Row]:
    mean = {name: float(values.mean()) for name, values in earned.items()}
    made = [row(f"{metric}: {name}", 100 * value, "%", note=note) for name, value in mean.items()]
    for name in (WITHOUT, *PATHS) if mean[BARE] else ():
        lift = mean[name] / mean[BARE] - 1
        ends = (100 * end / mean[BARE] for end in interval(earned[name] - earned[BARE], session))
        made.append(row(f"{metric}: {name} over bare", 100 * lift, "%", note=_ends(*ends)))
    change = interval(earned["known"] - earned[WITHOUT], session, seeds=True)
    made.append(
        row(
            f"{metric}: known, with a predictor minus without",
            100 * (mean["known"] - mean[WITHOUT]),
            "points",
            note=f"{_ends(*(100 * end for end in change))}, seeds drawn too",
        )
    )
    for base in (BARE, "absent"):
        whole = mean["known"] - mean[base]
        share = (mean["predicted"] - mean[base]) / whole if whole > 0 else float("nan")
        # Kept are at least 90 % if predicted is not below this mixture.
        goal = TARGET * earned["known"] + (1 - TARGET) * earned[base]
        low, high = (100 * end for end in interval(earned["predicted"] - goal, session))
        said = f"predicted minus 90 % of the way from {base} to known: 95 % [{low:.2f}, {high:.2f}] points"
        if whole <= 0:
            made.append(row(f"{metric}: known minus {base}", 100 * whole, "points", note="no lift to keep"))
        else:
            made.append(row(f"{metric}: kept of the lift over {base}", share, "share", TARGET, note=said))
    return made


def _ends(low: float, high: float) -> str:
    return f"95 % [{low:.1f}, {high:.1f}]"
