"""Print the table of folders of results: means over seeds, lifts and paired bootstrap intervals.

    python experiments/table.py experiments/results/protocol-beauty experiments/results/baselines \
        --json experiments/results/protocol-beauty.json

Several folders make one table and must be of one data set: what was tuned, and the baselines.

The difference of a variant and the baseline, the bare backbone by default, is taken example by example and
averaged over the seeds that both have (same test examples, same order); sessions are then resampled 2,000
times for a 95 % interval. The JSON has another one for which seeds are resampled, too.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import ranks

METRICS = ("recall@5", "recall@20", "mrr@20", "ndcg@20")
LIFTED = ("recall@5", "recall@20", "mrr@20")
RULES, REPEATS = "+rules", "+repeats"  # of a backbone's name: with_rules.py tested it; it has repeat_explore
REPEATING = "--model.repeat_explore true"  # in the command of a fit
DRAWS = 2000  # of a bootstrap
TARGET = 0.187  # of the average lift of Recall@20, benchmarks.md


def gains(rank: np.ndarray, metric: str) -> np.ndarray:
    """What each example earns."""
    name, k = metric.split("@")
    worth = {"recall": np.ones_like(rank), "mrr": 1 / rank, "ndcg": 1 / np.log2(1 + rank)}[name]
    return np.where(rank <= int(k), worth, 0.0)


def interval(difference: np.ndarray, session: np.ndarray, *, seeds: bool = False) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean; whole sessions are drawn: their examples hang together.

    Args:
        difference: Of each example ``(E,)``, or of each seed and example ``(S, E)``, whose mean is taken.
        session: Session of each example ``(E,)``.
        seeds: Draw the seeds, too: the interval then is of other trainings as well as of other sessions. Of
            few seeds it says little, but not nothing.
    """
    generator, dice = np.random.default_rng(0), np.random.default_rng(1)
    each = np.atleast_2d(difference)  # (S, E)
    total, count = (
        np.stack([np.bincount(session, one) for one in each], axis=1),
        np.bincount(session),
    )  # (n, S), (n,)
    means = []
    for _ in range(DRAWS):
        drawn = generator.integers(0, len(count), len(count))
        of_seeds = total[drawn].sum(0) / max(count[drawn].sum(), 1)  # (S,)
        means.append(of_seeds[dice.integers(0, len(each), len(each))].mean() if seeds else of_seeds.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def read_runs(folders: list[Path]) -> list[dict]:
    """Every tested result of some folders; a head that no file of a backbone names stands with its name."""
    runs = [json.loads(path.read_text()) for folder in folders for path in sorted(folder.glob("*.json"))]
    for run in runs:
        if REPEATING in run.get("command", ""):
            run["backbone"] += REPEATS
    return runs


def plain(backbone: str) -> str:
    """A backbone's name without what is beside it."""
    return backbone.split("+")[0]


def grouped(runs: list[dict]) -> dict[tuple[str, str], dict[int, dict]]:
    """Results by backbone and variant, then by seed."""
    groups: dict[tuple[str, str], dict[int, dict]] = defaultdict(dict)
    for run in runs:
        groups[run["backbone"], run["variant"]][run["seed"]] = run
    return groups


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--baseline", default="bare", help="variant that lifts are relative to")
    parser.add_argument(
        "--against", metavar="BACKBONE", help="its baseline for all; by default each one's own"
    )
    parser.add_argument(
        "--over-plain",
        action="store_true",
        help="lifts of models with rules or repeat_explore are over those without",
    )
    args = parser.parse_args()
    runs = read_runs(args.folders)
    if not runs:
        print(f"{args.folders[0]}: no results; run experiments/compare.py first", file=sys.stderr)
        return 1
    groups = grouped(runs)
    rows = []
    print(
        "| backbone | variant | seeds | "
        + " | ".join([*METRICS, *(f"lift of {metric}" for metric in LIFTED)])
        + " | epochs | min a fit |"
    )
    print("|---|---|---|" + "---|" * (len(METRICS) + len(LIFTED)) + "---|---|")
    for (backbone, variant), by_seed in groups.items():
        values = {m: np.array([100 * run["test"][f"test/{m}"] for run in by_seed.values()]) for m in METRICS}
        row = {"backbone": backbone, "variant": variant, "seeds": sorted(by_seed)}
        row |= {
            m: {"mean": round(v.mean(), 4), "std": round(v.std(ddof=1), 4) if len(v) > 1 else None}
            for m, v in values.items()
        }
        base = reference(args, groups, backbone, by_seed)
        itself = (backbone, variant) == (compared_with(args, backbone), args.baseline)
        lifts = {} if itself else {metric: lift(base, by_seed, metric) for metric in LIFTED}
        row["lift"] = lifts
        rows.append(row)
        cells = [
            f"{row[m]['mean']:.2f}" + (f" ± {row[m]['std']:.2f}" if row[m]["std"] is not None else "")
            for m in METRICS
        ]
        told = [tell(lifts.get(m)) for m in LIFTED]
        told.append(", ".join(str(run["best_epoch"] + 1) for run in by_seed.values()))
        row["fit_minutes"] = round(float(np.mean([run["fit_seconds"] for run in by_seed.values()])) / 60, 2)
        told.append(f"{row['fit_minutes']:.1f}")
        print("| " + " | ".join([backbone, variant, str(len(by_seed)), *cells, *told]) + " |")
    if args.json:
        args.json.write_text(json.dumps(report(args, runs, rows), indent=1) + "\n")
    return 0


def compared_with(args: argparse.Namespace, backbone: str) -> str:
    """The backbone that one's lifts are relative to."""
    own = plain(backbone) if args.over_plain else backbone
    return args.against or own


def reference(
    args: argparse.Namespace,
    groups: dict[tuple[str, str], dict[int, dict]],
    backbone: str,
    seeds: dict[int, dict],
) -> dict[int, dict]:
    """What a model's lifts are relative to, by seed; what only counts has one run for all seeds."""
    found = groups.get((compared_with(args, backbone), args.baseline), {})
    if args.against and len(found) == 1:
        return dict.fromkeys(seeds, *found.values())
    return found


def report(args: argparse.Namespace, runs: list[dict], rows: list[dict]) -> dict:
    """The rows in the form that all our benchmarks share."""
    flat = []
    told = args.against or ("itself alone" if args.over_plain else "")
    over = " ".join(part for part in (told, args.baseline) if part)
    for row in rows:
        name, seeds = f"{row['backbone']} {row['variant']}", f"seeds {row['seeds']}"
        for metric in METRICS:
            note = (
                seeds if row[metric]["std"] is None else f"{seeds}, standard deviation {row[metric]['std']}"
            )
            flat.append(
                {"what": f"{name}: {metric}", "value": row[metric]["mean"], "unit": "%", "note": note}
            )
        for metric, found in row["lift"].items():
            if found is not None:
                low = found["interval"][0] if found["interval"] else None
                flat.append(
                    {
                        "what": f"{name}: lift of {metric} over {over}",
                        "value": found["relative"],
                        "unit": "relative",
                        "target": TARGET if metric == "recall@20" else 0.0,
                        "better": "higher",
                        "met": found["relative"] >= TARGET if metric == "recall@20" else (low or 0) > 0,
                        "note": f"seeds {found['seeds']}, 95 % interval {found['interval']}",
                    }
                )
    first = runs[0]
    return {
        "benchmark": args.folders[0].name,
        "command": shlex.join(["python", *sys.argv]),
        **{key: first[key] for key in ("date", "machine", "device", "versions")},
        "rows": flat,
        "details": rows,
    }


def lift(bare: dict[int, dict], wrapped: dict[int, dict], metric: str) -> dict | None:
    """Relative lift over the shared seeds; with an interval where the ranks are at hand."""
    seeds = sorted(set(bare) & set(wrapped))
    if not seeds:
        return None
    base = np.mean([bare[s]["test"][f"test/{metric}"] for s in seeds])
    ours = np.mean([wrapped[s]["test"][f"test/{metric}"] for s in seeds])
    result = {"relative": round(float(ours / base - 1), 4), "seeds": seeds, "interval": None}
    found = [(ranks.unpack(bare[s]), ranks.unpack(wrapped[s])) for s in seeds]
    if all(one and other for one, other in found):
        differences = np.stack([gains(other[0], metric) - gains(one[0], metric) for one, other in found])
        for name, drawn in {"interval": False, "interval_with_seeds": len(seeds) > 1}.items():
            if drawn or name == "interval":
                edges = interval(differences, found[0][0][1], seeds=drawn)
                result[name] = [round(edge / float(base), 4) for edge in edges]
    return result


def tell(found: dict | None) -> str:
    """A lift in words."""
    if found is None:
        return "–"
    text = f"{found['relative']:+.1%}"
    return text + (
        f" [{found['interval'][0]:+.1%}, {found['interval'][1]:+.1%}]" if found["interval"] else ""
    )


if __name__ == "__main__":
    sys.exit(main())
