"""Means over seeds and lifts over a baseline, from the fits of studies: pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from experiments.study.intervals import gains, interval
from experiments.study.rows import Run

METRICS = ("recall@5", "recall@20", "mrr@20", "ndcg@20")
LIFTED = ("recall@5", "recall@20", "mrr@20")
RULES, REPEATS = "+rules", "+repeats"  # suffixes of model names: with sequential rules, with repeat-explore
Groups = dict[tuple[str, str], dict[int, Run]]  # fits by model and variant, then by seed


def model(run: Run) -> str:
    """Return the name of a backbone, with the suffixes of its additions.

    >>> model({"backbone": "SASRec", "settings": {"rules": 2.0}}), model({"backbone": "pop"})
    ('SASRec+rules', 'pop')
    """
    settings = run.get("settings", {})
    name = str(run["backbone"]) + (RULES if "rules" in settings else "")
    return name + (REPEATS if settings.get("repeat_explore") else "")


def plain(name: str) -> str:
    """Return the name of a model without suffixes."""
    return name.split("+")[0]


def grouped(runs: Iterable[Run]) -> Groups:
    """Group fits by model and variant, in their order, then by seed."""
    groups: Groups = defaultdict(dict)
    for run in runs:
        groups[model(run), run["variant"]][run["seed"]] = run
    return groups


def lift(bare: dict[int, Run], wrapped: dict[int, Run], metric: str) -> dict[str, Any] | None:
    """Compute the relative lift over the shared seeds, with an interval if the fits have ranks."""
    seeds = sorted(set(bare) & set(wrapped))
    if not seeds:
        return None
    base = float(np.mean([bare[seed]["test"][f"test/{metric}"] for seed in seeds]))
    ours = float(np.mean([wrapped[seed]["test"][f"test/{metric}"] for seed in seeds]))
    result: dict[str, Any] = {"relative": round(ours / base - 1, 4), "seeds": seeds, "interval": None}
    if all("ranks" in run[seed] for run in (bare, wrapped) for seed in seeds):
        differences = np.stack(
            [gains(wrapped[seed]["ranks"], metric) - gains(bare[seed]["ranks"], metric) for seed in seeds]
        )
        for name, drawn in {"interval": False, "interval_with_seeds": len(seeds) > 1}.items():
            if drawn or name == "interval":
                edges = interval(differences, bare[seeds[0]]["session"], seeds=drawn)
                result[name] = [round(edge / base, 4) for edge in edges]
    return result


def tell(found: dict[str, Any] | None) -> str:
    """Format a lift with its interval."""
    if found is None:
        return "–"
    text = f"{found['relative']:+.1%}"
    if found["interval"]:
        text += " [{:+.1%}, {:+.1%}]".format(*found["interval"])
    return text
