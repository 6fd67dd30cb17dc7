"""Print what wrapping brings over several data sets: the average lift, and who loses.

    python experiments/summary.py experiments/results/protocol-beauty experiments/results/protocol-ml-100k \
        --json experiments/results/lifts.json --picture experiments/results/curves

Each folder is one data set that protocol.py wrote, or a data set's backbones of one seed: the average of
those of several seeds is told first, then that of all. A lift is relative to the bare backbone over the seeds
that both have; a loss is significant where the whole 95 % interval of a paired bootstrap over sessions lies
below 0.
``--picture`` draws the validation curves of every tested fit, one file a data set: where a model overfits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import table
from benchmarks.results import write

CHOSEN = "val/ndcg@20"  # what validation chooses epochs and trials by


def lifts(folder: Path, baseline: str) -> list[dict[str, Any]]:
    """One row for each backbone and variant of a data set that has a lift."""
    groups = table.grouped(table.read_runs([folder]))
    rows = []
    for (backbone, variant), by_seed in groups.items():
        base = groups.get((backbone, baseline), {})
        if variant == baseline or not set(base) & set(by_seed):
            continue
        row: dict[str, Any] = {"data": folder.name, "backbone": backbone, "variant": variant}
        row |= {metric: table.lift(base, by_seed, metric) for metric in table.LIFTED}
        rows.append(row)
    return rows


def averaged(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What is averaged: a variant's pairs of several seeds, and where there are others, all of its pairs."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        sure = [row for row in own if len(row["recall@20"]["seeds"]) > 1]
        groups[variant] = sure or own
        if 0 < len(sure) < len(own):
            groups[f"{variant}, with those of one seed"] = own
    return groups


def has_curve(run: dict[str, Any]) -> bool:
    """Whether a result keeps what was chosen by, epoch by epoch; baselines and old ones do not."""
    return bool(run.get("curve")) and CHOSEN in run["curve"][0]


def overfitting(folder: Path) -> list[dict[str, Any]]:
    """What each model loses by training on after its best epoch, and of Recall by choosing that by NDCG."""
    rows = []
    for (backbone, variant), by_seed in table.grouped(table.read_runs([folder])).items():
        curves = [(run["curve"], run["best_epoch"]) for run in by_seed.values() if has_curve(run)]
        if not curves:
            continue
        lost = mean(curve[-1][CHOSEN] / curve[best][CHOSEN] - 1 for curve, best in curves)
        top = mean(max(epoch["val/recall@20"] for epoch in curve) for curve, _ in curves)
        chosen = mean(curve[best]["val/recall@20"] for curve, best in curves)
        rows.append(
            {
                "data": folder.name,
                "backbone": backbone,
                "variant": variant,
                "epoch": mean(best + 1 for _, best in curves),
                "lost_by_the_end": round(lost, 4),
                "recall_lost_by_the_choice": round(chosen / top - 1, 4),
            }
        )
    return rows


def flat(rows: list[dict[str, Any]], averages: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The lifts in the form that all our results share."""
    found = []
    for variant, average in averages.items():
        for metric, value in average.items():
            one = {"what": f"average lift of {metric}, {variant}", "value": value, "unit": "relative"}
            if metric == "recall@20":
                one |= {"target": table.TARGET, "better": "higher", "met": value >= table.TARGET}
            found.append(one)
    for row in rows:
        name = f"{row['data']}, {row['backbone']} {row['variant']}"
        for metric in table.LIFTED:
            one = {"what": f"{name}: lift of {metric}", "value": row[metric]["relative"], "unit": "relative"}
            one["note"] = f"seeds {row[metric]['seeds']}, 95 % interval {row[metric]['interval']}"
            found.append(one)
    return found


def draw(folder: Path, target: Path) -> None:
    """Validation NDCG@20 and Recall@20 by epoch: a line a fit, a colour a variant, a row a backbone."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    groups = table.grouped([run for run in table.read_runs([folder]) if has_curve(run)])
    if not groups:
        return
    backbones, variants = (sorted({key[part] for key in groups}) for part in (0, 1))
    figure, axes = pyplot.subplots(
        len(backbones), 2, figsize=(9, 3 * len(backbones)), squeeze=False, layout="constrained"
    )
    for (backbone, variant), by_seed in groups.items():
        number = variants.index(variant)
        for axis, metric in zip(axes[backbones.index(backbone)], (CHOSEN, "val/recall@20"), strict=True):
            for order, run in enumerate(by_seed.values()):
                values = [100 * epoch[metric] for epoch in run["curve"]]
                label = variant if order == 0 else None
                epochs = range(1, len(values) + 1)
                axis.plot(
                    epochs, values, color=f"C{number}", marker="os^Dv"[number % 5], ms=4, lw=1, label=label
                )
            axis.set(title=backbone, xlabel="epoch", ylabel=f"{metric.removeprefix('val/')} (validation, %)")
            axis.grid(alpha=0.3)
    axes[0, 0].legend()
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / f"{folder.name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--baseline", default="bare", help="variant that lifts are relative to")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="folder for the curves")
    args = parser.parse_args()
    rows = [row for folder in args.folders for row in lifts(folder, args.baseline)]
    if not rows:
        print(f"no lift over {args.baseline} in these folders", file=sys.stderr)
        return 1
    print("| data | backbone | variant | " + " | ".join(f"lift of {m}" for m in table.LIFTED) + " | worse |")
    print("|---|---|---|" + "---|" * len(table.LIFTED) + "---|")
    for row in rows:
        found = [row[metric] for metric in table.LIFTED]
        row["worse"] = [
            metric
            for metric in table.LIFTED
            if row[metric]["interval"] is not None and row[metric]["interval"][1] < 0
        ]
        measured = all(one["interval"] is not None for one in found)  # old results kept no ranks
        told = [*map(table.tell, found), ", ".join(row["worse"]) or ("–" if measured else "not known")]
        print("| " + " | ".join([row["data"], row["backbone"], row["variant"], *told]) + " |")
    averages = {}
    for variant, own in averaged(rows).items():
        averages[variant] = {m: round(mean(row[m]["relative"] for row in own), 4) for m in table.LIFTED}
        told = [f"{averages[variant][metric]:+.1%}" for metric in table.LIFTED]
        print("| " + " | ".join(["*average*", f"{len(own)}", variant, *told, ""]) + " |")
    lost = [row for folder in args.folders for row in overfitting(folder)]
    told = ["data", "backbone", "variant", "chosen epoch", "NDCG@20, last epoch over best"]
    print("\n| " + " | ".join([*told, "Recall@20, chosen epoch over best"]) + " |")
    print("|---|---|---|---|---|---|")
    for row in lost:
        cells = [f"{row['epoch']:.1f}", f"{row['lost_by_the_end']:+.1%}"]
        cells.append(f"{row['recall_lost_by_the_choice']:+.1%}")
        print("| " + " | ".join([row["data"], row["backbone"], row["variant"], *cells]) + " |")
    if args.picture:
        for folder in args.folders:
            draw(folder, args.picture)
    if args.json:
        write(args.json.stem, flat(rows, averages), args.json, details=rows, overfitting=lost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
