"""The tables of the documentation, from the kept JSONs; publish.py writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from experiments.study.lifts import LIFTED
from experiments.study.markdown import (
    DATA,
    SHOWN,
    Row,
    best_of,
    few,
    head,
    kept,
    lifted,
    line,
    measured,
    named,
    ordered,
    percent,
)
from experiments.study.names import title

FEW = 50  # examples below which a group is not shown


def protocol(results: Path, data: str) -> Iterator[str]:
    """Every tested model of a data set, each pair with its lift; the best of a metric is bold."""
    rows = kept(results, f"protocol-{data}") + kept(results, f"protocol-{data}-one-seed")
    best = best_of(rows)
    yield from head([DATA[data], *SHOWN.values()])
    for row in ordered(rows):
        yield line([named(row), *measured(row, best)])
        if row["variant"] != "bare":
            yield lifted("lift", row)


def seeds(results: Path, name: str) -> Iterator[str]:
    """Lifts over bare with intervals over sessions and seeds, both data sets beside each other."""
    key = "interval_with_seeds"
    rows = [row for row in kept(results, name) if key in row["recall@20"]]
    yield from head(
        ["", *(f"{data} {SHOWN[metric]}" for data in ("Beauty", "MovieLens") for metric in LIFTED)]
    )
    found = {
        (row["backbone"], data): row for row in rows for data in DATA if f"protocol-{data}" in row["data"]
    }
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        pair = [found.get((backbone, data), {}) for data in DATA]
        cells = [percent(one.get(metric), key) for one in pair for metric in LIFTED]
        yield line([title(backbone), *cells])
    averages = [
        mean(row[metric]["relative"] for (_, of), row in found.items() if of == data)
        for data in DATA
        for metric in LIFTED
    ]
    yield line(["*average*", *(f"{100 * value:+.1f} %" for value in averages)])


def brief(results: Path) -> Iterator[str]:
    """Lifts of each data set for README.md: averages, SR-GNN and the strongest backbone."""
    yield from head(["wrapped over bare", *(SHOWN[metric] for metric in LIFTED)])
    for data, shown in DATA.items():
        name = shown.split(":")[0]
        rows = [row for row in kept(results, "lifts") if f"protocol-{data}" in row["data"]]
        if not rows:
            continue
        tuned = [row for row in rows if len(row["recall@20"]["seeds"]) > 1]
        for chosen, what in ((tuned, "tuned backbones"), (rows, "backbones, with those of one seed")):
            means = (mean(row[metric]["relative"] for row in chosen) for metric in LIFTED)
            yield line(
                [f"{name}: average of {len(chosen)} {what}", *(f"{100 * value:+.1f} %" for value in means)]
            )
        by_name = {row["backbone"]: row for row in rows}
        models = kept(results, f"protocol-{data}") + kept(results, f"protocol-{data}-one-seed")
        best = max(
            (row for row in models if row["backbone"] in by_name), key=lambda row: row["recall@20"]["mean"]
        )
        both = {
            row["backbone"]: row["lift"] for row in kept(results, f"protocol-{data}-repeats") if row["lift"]
        }
        for what, lift in (
            ("SR-GNN", by_name.get("SRGNN")),
            ("SR-GNN, both with `RepeatExplore`", both.get("SRGNN+repeats")),
            (f"the strongest, {title(best['backbone'])}{few(best['seeds'])}", by_name[best["backbone"]]),
        ):
            if lift is not None:
                yield line([f"{name}: {what}", *(percent(lift[metric]) for metric in LIFTED)])


def average(results: Path, name: str) -> Iterator[str]:
    """What wrapping brings on average over pairs of backbone and data set: several seeds, then all."""
    rows = kept(results, name)
    sure = [row for row in rows if len(row["recall@20"]["seeds"]) > 1]
    text = f"{len(sure)} pairs of backbone and data, three seeds each: {gained(sure)}"
    if len(rows) > len(sure):
        text += f"; with those of one seed, {len(rows)} pairs: {gained(rows)}"
    yield f"Average over {text} (`results/{name}.json`)."


def gained(rows: list[Row]) -> str:
    """Mean lifts in words."""
    return ", ".join(
        f"{100 * mean(row[one]['relative'] for row in rows):+.1f} % of {SHOWN[one]}" for one in LIFTED
    )


def groups(results: Path) -> Iterator[str]:
    """Recall@20 by groups of test examples, both data sets beside each other."""
    columns = ["number", "bare", "wrapped", "difference", "*rules*"]
    first = [[f"{data}: {columns[0]}", *columns[1:]] for data in ("Beauty", "MovieLens")]
    yield from head(["test examples by", "", *first[0], *first[1]])
    both = [[one for one in kept(results, f"groups-{data}") if one["metric"] == "recall@20"] for data in DATA]
    for pair in zip(*both, strict=True):
        cells = [pair[0]["by"], re.sub(r"(?<=\d)-(?=\d)", "–", pair[0]["group"])]
        for row in pair:
            cells.append(f"{row['examples']:,}")
            if row["examples"] < FEW:
                cells += ["–"] * 4
                continue
            low, high = row["interval"]
            change = f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
            cells += [f"{row['baseline']:.2f}", f"{row['wrapped']:.2f}"]
            cells += [f"**{change}**" if low > 0 or high < 0 else change]
            cells += [f"{row['beside']['sequential-rules']:.2f}"]
        yield line(cells)


def cost(results: Path) -> Iterator[str]:
    """What a step and an epoch take, on a CPU and on a GPU, the cheapest backbone first."""
    cpu, gpu = (
        {(row["backbone"], row["variant"]): row for row in kept(results, name)}
        for name in ("cost-beauty", "cost-beauty-gpu")
    )
    both = [f"{unit}, {on}{how}" for unit in ("ms a step", "s an epoch") for on in ("CPU", "GPU")
            for how in (" bare", " wrapped")]  # fmt: skip
    yield from head(["backbone", *both])
    bare = sorted((row for row in cpu.values() if row["variant"] == "bare"), key=lambda row: row["ms_a_step"])
    for backbone in (row["backbone"] for row in bare):
        cells = [title(backbone)]
        for unit in ("ms_a_step", "seconds_an_epoch"):
            for rows in (cpu, gpu):
                pair = (rows.get((backbone, variant)) for variant in ("bare", "titles"))
                cells += ["–" if row is None else f"{row[unit]:.0f}" for row in pair]
        yield line(cells)
