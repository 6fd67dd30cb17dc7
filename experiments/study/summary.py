"""Summary of wrapping over several data sets: average lift, losses and overfitting."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from experiments.benchmarks.results import result, save
from experiments.study.curves import CHOSEN, draw, has_curve
from experiments.study.lifts import LIFTED, grouped, lift, tell
from experiments.study.results import Study
from experiments.study.table import TARGET, pairs
from llm4sbr.contracts.errors import InputError


def summary(
    studies: list[Path], baseline: str = "bare", json: Path | None = None, picture: Path | None = None
) -> None:
    """Print the effect of wrapping over several data sets: average lift, losses and overfitting.

    The average over models with several seeds comes first, then that of all models. A lift is relative to the
    bare backbone over the shared seeds; a loss is significant if the whole 95 % interval of a paired
    bootstrap over sessions lies below 0.

    Example::

        python -m experiments summary --studies '[experiments/results/protocol-beauty.parquet,
            experiments/results/protocol-ml-100k.parquet]' --picture curves

    Args:
        studies: Results files, one or more per data set.
        baseline: Variant that lifts are relative to.
        json: File for the results.
        picture: Folder for the validation curves of every tested fit, one SVG per study.
    """
    rows = [row for path in studies for row in lifts(path, baseline)]
    if not rows:
        raise InputError(f"no lift over {baseline} in these studies", value=[str(path) for path in studies])
    head = ["data", "backbone", "variant", *(f"lift of {metric}" for metric in LIFTED), "worse"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        found = [row[metric] for metric in LIFTED]
        row["worse"] = [m for m in LIFTED if row[m]["interval"] is not None and row[m]["interval"][1] < 0]
        measured = all(one["interval"] is not None for one in found)  # old results have no ranks
        cells = [*map(tell, found), ", ".join(row["worse"]) or ("–" if measured else "not known")]
        print("| " + " | ".join([row["data"], row["backbone"], row["variant"], *cells]) + " |")
    averages = {}
    for variant, own in averaged(rows).items():
        averages[variant] = {m: round(mean(row[m]["relative"] for row in own), 4) for m in LIFTED}
        cells = [f"{averages[variant][metric]:+.1%}" for metric in LIFTED]
        print("| " + " | ".join(["*average*", f"{len(own)}", variant, *cells, ""]) + " |")
    lost = [row for path in studies for row in overfitting(path)]
    head = ["data", "backbone", "variant", "chosen epoch", "NDCG@20, last epoch over best"]
    print("\n| " + " | ".join([*head, "Recall@20, chosen epoch over best"]) + " |\n|---|---|---|---|---|---|")
    for row in lost:
        cells = [
            f"{row['epoch']:.1f}",
            f"{row['lost_by_the_end']:+.1%}",
            f"{row['recall_lost_by_the_choice']:+.1%}",
        ]
        print("| " + " | ".join([row["data"], row["backbone"], row["variant"], *cells]) + " |")
    if picture:
        for path in studies:
            draw(Study(path), picture)
    if json:
        save(json, result(json.stem, flat(rows, averages), details=rows, overfitting=lost))


def lifts(path: Path, baseline: str) -> list[dict[str, Any]]:
    """Make a row for each backbone and variant of a study with a lift."""
    study = Study(path)
    return [
        {"data": study.name, "backbone": name, "variant": variant}
        | {metric: lift(base, ours, metric) for metric in LIFTED}
        for name, variant, base, ours in pairs(grouped(study.tested()), baseline)
    ]


def averaged(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group the rows to average: the pairs of a variant with several seeds, and all pairs if others exist."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        sure = [row for row in own if len(row["recall@20"]["seeds"]) > 1]
        groups[variant] = sure or own
        if 0 < len(sure) < len(own):
            groups[f"{variant}, with those of one seed"] = own
    return groups


def overfitting(path: Path) -> list[dict[str, Any]]:
    """Measure the loss after the best epoch, and the loss of Recall because NDCG chooses the epoch."""
    study, rows = Study(path), []
    for (name, variant), by_seed in grouped(study.tested()).items():
        curves = [(run["history"], run["best_epoch"]) for run in by_seed.values() if has_curve(run)]
        if not curves:
            continue
        lost = mean(curve[-1][CHOSEN] / curve[best][CHOSEN] - 1 for curve, best in curves)
        top = mean(max(epoch["val/recall@20"] for epoch in curve) for curve, _ in curves)
        chosen = mean(curve[best]["val/recall@20"] for curve, best in curves)
        row = {"data": study.name, "backbone": name, "variant": variant}
        row |= {"epoch": mean(best + 1 for _, best in curves), "lost_by_the_end": round(lost, 4)}
        rows.append(row | {"recall_lost_by_the_choice": round(chosen / top - 1, 4)})
    return rows


def flat(rows: list[dict[str, Any]], averages: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Put the lifts into the common format of all results."""
    found = []
    for variant, average in averages.items():
        for metric, value in average.items():
            one = {"what": f"average lift of {metric}, {variant}", "value": value, "unit": "relative"}
            if metric == "recall@20":
                one |= {"target": TARGET, "better": "higher", "met": value >= TARGET}
            found.append(one)
    for row in rows:
        name = f"{row['data']}, {row['backbone']} {row['variant']}"
        for metric in LIFTED:
            one = {"what": f"{name}: lift of {metric}", "value": row[metric]["relative"], "unit": "relative"}
            note = f"seeds {row[metric]['seeds']}, 95 % interval {row[metric]['interval']}"
            found.append(one | {"note": note})
    return found
