"""Print where wrapping helps and where it does not: lifts of tested results, by kinds of test examples.

    python experiments/where.py experiments/results/protocol-beauty experiments/results/baselines \
        --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty --store views/beauty \
        --json experiments/results/where-beauty.json

The folders are of one data set: what protocol.py tested, and baselines for comparison. Nothing is run: the
ranks that every result keeps are divided by what training knew of the next item, of the step that leads to
it, of its title, and by the length of the session. The models of the table are the backbones that have both
variants, over the seeds that both have; each counts the same. Intervals are paired bootstraps over the test
sessions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ranks
import table
import torch
from benchmarks.results import write
from compare_views import data_module
from torch.nn.functional import normalize

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.views import ViewStore
from llm4sbr.views.loading import load_view_table

CLICKS = (0, 5, 20, 100)  # upper ends of the bins but the last
LENGTHS = (1, 3, 9)
NEARNESS = (20, 100, 1000)
Groups = dict[str, np.ndarray]  # kinds of examples by name, each (E,) bool


def binned(values: np.ndarray, ends: tuple[int, ...], low: int = 0) -> Groups:
    """Examples by a whole number of `low` or more, in bins up to each of `ends` and one beyond.

    >>> {name: found.tolist() for name, found in binned(np.array([0, 7, 2]), (0, 5)).items()}
    {'0': [True, False, False], '1–5': [False, False, True], 'more than 5': [False, True, False]}
    """
    found = {}
    for end in ends:
        found[f"{low}–{end}" if low < end else f"{end}"] = (values >= low) & (values <= end)
        low = end + 1
    return found | {f"more than {ends[-1]}": values >= low}


def steps(examples: Examples, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Every click of some sessions, given with all their prefixes, and every step from click to click."""
    last = examples.clicks[examples.end - 1].astype(np.int64)
    first = last[examples.end - examples.start == 1]
    clicked = np.concatenate((first, examples.target))
    return clicked, np.unique(last * (num_items + 1) + examples.target)


def title_rank(examples: Examples, titles: torch.Tensor) -> np.ndarray:
    """Rank of the next item's title by its cosine to the last click's, whose own comes first.

    Args:
        examples: ``E`` examples.
        titles: ``(V + 1, d_t)``, row 0 is no item.
    """
    unit = normalize(titles.float(), dim=-1)
    last = torch.from_numpy(examples.clicks[examples.end - 1].astype(np.int64))
    target = torch.from_numpy(examples.target.astype(np.int64))
    found = []
    for own, wanted in zip(last.split(512), target.split(512), strict=True):
        scores = unit[own] @ unit[1:].T
        found.append((scores > scores.gather(1, wanted.unsqueeze(1) - 1)).sum(1) + 1)
    return torch.cat(found).numpy()


def kinds(
    train: Examples, test: Examples, catalogue: Catalogue, titles: torch.Tensor | None
) -> dict[str, Groups]:
    """What the test examples are divided by."""
    clicked, known = steps(train, catalogue.num_items)
    times = np.bincount(clicked, minlength=catalogue.num_items + 1)
    own = test.clicks[test.end - 1].astype(np.int64) * (catalogue.num_items + 1) + test.target
    seen = np.isin(own, known)
    found = {
        "clicks of the next item in training": binned(times[test.target], CLICKS),
        "the step to it, in training": {"seen": seen, "not seen": ~seen},
        "clicks of the session": binned(test.end - test.start, LENGTHS, low=1),
    }
    if titles is not None:
        found["its title, nth nearest of the last click's"] = binned(
            title_rank(test, titles), NEARNESS, low=1
        )
    return found


def models(
    runs: list[dict], baseline: str, variant: str, metric: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each backbone's baseline and wrapped model earned, averaged over the seeds that both have."""
    groups, found = table.grouped(runs), {}
    for backbone, name in groups:
        base, ours = groups.get((backbone, baseline), {}), groups[backbone, name]
        if name == variant and (shared := sorted(set(base) & set(ours))):
            means = [np.mean([gains_of(one[s], metric) for s in shared], axis=0) for one in (base, ours)]
            found[backbone] = (means[0], means[1])
    return found


def gains_of(run: dict[str, Any], metric: str) -> np.ndarray:
    """What each example of a result earned."""
    kept = ranks.unpack(run)
    if kept is None:
        raise InputError("this result keeps no ranks", value=f"{run['backbone']} {run['variant']}")
    return table.gains(kept[0], metric)


def rows(
    args: argparse.Namespace, runs: list[dict], divided: dict[str, Groups], session: np.ndarray
) -> list[dict[str, Any]]:
    """One row for each kind of examples and metric."""
    found = []
    everything = {"all": {"": np.ones(len(session), bool)}}
    for metric in table.LIFTED:
        pairs = models(runs, args.baseline, args.variant, metric)
        if not pairs:
            raise InputError(f"no backbone has both {args.baseline} and {args.variant}", value=args.folders)
        base, ours = (np.mean([pair[n] for pair in pairs.values()], axis=0) for n in (0, 1))
        others = {run["backbone"]: gains_of(run, metric) for run in runs if run["backbone"] in args.beside}
        for by, groups in (everything | divided).items():
            for name, where in groups.items():
                row = {"by": by, "group": name, "metric": metric, "examples": int(where.sum())}
                row["backbones"] = list(pairs)
                if where.any():
                    row |= compared(base[where], ours[where], session[where])
                    row["beside"] = {n: round(100 * float(one[where].mean()), 2) for n, one in others.items()}
                found.append(row)
    return found


def compared(base: np.ndarray, ours: np.ndarray, session: np.ndarray) -> dict[str, Any]:
    """Means in %, the difference in percentage points with its interval, and the lift."""
    low, high = table.interval(ours - base, session)
    before, after = float(base.mean()), float(ours.mean())
    return {
        "baseline": round(100 * before, 2),
        "wrapped": round(100 * after, 2),
        "difference": round(100 * (after - before), 2),
        "interval": [round(100 * low, 2), round(100 * high, 2)],
        "lift": round(after / before - 1, 4) if before > 0 else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--data", required=True, help="data module YAML that the results were made with")
    parser.add_argument("--data_dir")
    parser.add_argument("--store", help="folder of views, for the distance of titles")
    parser.add_argument("--baseline", default="bare", help="variant that differences are relative to")
    parser.add_argument("--variant", default="titles")
    parser.add_argument("--beside", nargs="*", default=["sequential-rules"], help="baselines to show beside")
    parser.add_argument("--metric", default="recall@20", choices=table.LIFTED, help="that the table shows")
    parser.add_argument("--json", type=Path, help="has every metric")
    args = parser.parse_args()
    data = data_module(args.data, args.data_dir)
    titles = None
    if args.store:
        with ViewStore(args.store) as store:
            titles = load_view_table(store, data, "titles").table.table.titles
    test = data.examples("test")
    runs = table.read_runs(args.folders)
    for run in runs:
        kept = ranks.unpack(run)
        if kept is not None and len(kept[0]) != len(test):
            raise InputError(
                f"{run['backbone']} {run['variant']} was tested on {len(kept[0])} examples, not {len(test)}",
                hint="Give the data that the results were made with",
            )
    found = rows(args, runs, kinds(data.examples("train"), test, data.catalogue, titles), test.session)
    print(f"{args.metric}, in %; mean over {', '.join(found[0]['backbones'])}")
    told = ["examples by", "", "number", args.baseline, args.variant, "difference", "lift", *args.beside]
    print("| " + " | ".join(told) + " |")
    print("|" + "---|" * len(told))
    for row in (row for row in found if row["metric"] == args.metric and row["examples"]):
        low, high = row["interval"]
        cells = [
            row["by"],
            row["group"],
            f"{row['examples']:,}",
            f"{row['baseline']:.2f}",
            f"{row['wrapped']:.2f}",
        ]
        cells.append(f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]")
        cells.append("–" if row["lift"] is None else f"{row['lift']:+.1%}")
        cells += [f"{row['beside'][name]:.2f}" if name in row["beside"] else "–" for name in args.beside]
        print("| " + " | ".join(cells) + " |")
    if args.json:
        flat = [
            {
                "what": " ".join((row["metric"], row["by"], row["group"], "difference")).replace("  ", " "),
                "value": row["difference"],
                "unit": "percentage points",
                "note": f"95 % interval {row['interval']}, {row['examples']} examples",
            }
            for row in found
            if row["examples"]
        ]
        write(args.json.stem, flat, args.json, details=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
