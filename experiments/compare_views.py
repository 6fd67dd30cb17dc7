"""One set of views against another, on the examples that both cover: did tuning, or another prompt, help?

    python experiments/compare_views.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --store views/beauty --specs tuned=650a63 untuned=e8ad01 --json experiments/results/tuning.json

Every set is held against the last one named. Intervals are of paired differences over sessions (bootstrap).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from benchmarks.results import keep, row
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.registry import DATAMODULES, load_plugins
from llm4sbr.report.view_quality.command import OneSplit
from llm4sbr.report.view_quality.measure import Measured, measure, view_name
from llm4sbr.report.view_quality.statistics import METRICS, gains, intervals
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore


def data_module(path: str, data_dir: str | None) -> LightningDataModule:
    """The data module of a YAML file."""
    load_plugins(DATAMODULES)
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    words = ["--data", path] + (["--data.data_dir", data_dir] if data_dir else [])
    data: LightningDataModule = parser.instantiate_classes(parser.parse_args(words)).data
    data.prepare_data()
    return data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--store", required=True)
    parser.add_argument("--specs", nargs="+", required=True, help="NAME=FINGERPRINT, the baseline last")
    parser.add_argument("--split", default="validate", choices=["train", "validate", "test"])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    data = data_module(args.data, args.data_dir)
    source = OneSplit(data, args.split)
    examples, nothing = source.examples(args.split), np.zeros(data.catalogue.num_items, np.int64)
    found: dict[str, Measured] = {}
    with ViewStore(args.store) as store:
        for entry in args.specs:
            name, fingerprint = entry.split("=", 1)
            found[name] = measure(load_view_table(store, source, fingerprint), examples, nothing, draws=1)
    shared = sorted(set.intersection(*(set(one.rows.tolist()) for one in found.values())))
    sessions = examples.session[shared]
    *others, baseline = found
    note = f"{len(shared)} examples of {len(np.unique(sessions))} sessions, {args.split} split"
    rows = []
    views = [view.view for view in found[baseline].views]
    for view in views:
        for metric in METRICS:
            earned = {
                name: gains(one.ranks[view_name(view)].every[np.isin(one.rows, shared)], metric)
                for name, one in found.items()
            }
            rows += [
                row(f"{view}, {name}: {metric}", 100 * value.mean(), "%", note=note)
                for name, value in earned.items()
            ]
            for name in others:
                gain = (earned[name] - earned[baseline])[:, None]
                low, high = 100 * intervals(gain, sessions, args.draws)[:, 0]
                what = f"{view}, {name} minus {baseline}: {metric}"
                one = row(what, 100 * gain.mean(), "points", note=f"{note}, 95 % [{low:.2f}, {high:.2f}]")
                rows.append(one | {"target": 0, "better": "higher", "met": bool(low > 0)})
    keep("compare-views", rows, args.json)


if __name__ == "__main__":
    main()
