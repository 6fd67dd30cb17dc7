"""Comparison of sets of views on the examples that all of them cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.benchmarks.results import keep, row
from experiments.study.data import data_module
from llm4sbr.report.view_quality.command import OneSplit
from llm4sbr.report.view_quality.measure import Measured, measure, view_name
from llm4sbr.report.view_quality.statistics import METRICS, gains, intervals
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore


def views(
    data: str,
    store: str,
    specs: dict[str, str],
    data_dir: str | None = None,
    split: str = "validate",
    draws: int = 2000,
    json: Path | None = None,
) -> None:
    """Compare sets of views on the examples that all cover, for example of a tuned LLM or another prompt.

    Every set is compared with the last one. Intervals are bootstrap intervals of paired differences over
    sessions.

    Example::

        python -m experiments views --data experiments/data/beauty.yaml --store views/beauty
            --specs '{tuned: 650a63, untuned: e8ad01}' --json experiments/results/tuning.json

    Args:
        data: Data module YAML.
        store: Folder of the view store.
        specs: Fingerprints by name, the baseline last.
        data_dir: Folder of the data; by default that of the YAML.
        split: Split of the examples: ``train``, ``validate`` or ``test``.
        draws: Number of bootstrap samples.
        json: File for the results.
    """
    module = data_module(data, data_dir)
    source = OneSplit(module, split)
    examples, nothing = source.examples(split), np.zeros(module.catalogue.num_items, np.int64)
    found: dict[str, Measured] = {}
    with ViewStore(store) as opened:
        for name, spec in specs.items():
            found[name] = measure(load_view_table(opened, source, str(spec)), examples, nothing, draws=1)
    shared = sorted(set.intersection(*(set(one.rows.tolist()) for one in found.values())))
    sessions = examples.session[shared]
    *others, baseline = found
    note = f"{len(shared)} examples of {len(np.unique(sessions))} sessions, {split} split"
    rows = []
    for view in [view.view for view in found[baseline].views]:
        for metric in METRICS:
            earned = {
                name: gains(one.ranks[view_name(view)].every[np.isin(one.rows, shared)], metric)
                for name, one in found.items()
            }
            for name, values in earned.items():
                rows.append(row(f"{view}, {name}: {metric}", 100 * values.mean(), "%", note=note))
            for name in others:
                gain = (earned[name] - earned[baseline])[:, None]
                low, high = 100 * intervals(gain, sessions, draws)[:, 0]
                what = f"{view}, {name} minus {baseline}: {metric}"
                one = row(what, 100 * gain.mean(), "points", note=f"{note}, 95 % [{low:.2f}, {high:.2f}]")
                rows.append(one | {"target": 0, "better": "higher", "met": bool(low > 0)})
    keep("views", rows, json)
