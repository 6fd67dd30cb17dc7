"""The tables of README.md and experiments/README.md, from the results; publish.py writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from table import LIFTED, METRICS, REPEATS, RULES, plain

SHOWN = {"recall@5": "Recall@5", "recall@20": "Recall@20", "mrr@20": "MRR@20", "ndcg@20": "NDCG@20"}
FEW = 50  # examples below which a kind of example is not shown
DATA = {  # what a table is called, how many examples it has
    "beauty": "Beauty: 142,990 training, 15,727 validation, 17,422 test examples",
    "ml-100k": "MovieLens 100K: 79,099 training, 8,352 validation, 8,528 test examples",
}
NAMES = {  # the order of rows: the paper's, ours, then what only counts
    "srgnn": "SR-GNN",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "gcegnn": "GCE-GNN",
    "dhcn": "S²-DHCN",
    "stamp": "STAMP",
    "niser": "NISER+",
    "attenmixer": "Atten-Mixer",
    "share": "SHARE",
    "narm": "NARM",
    "gcsan": "GC-SAN",
    "tagnn": "TAGNN",
    "lessr": "LESSR",
    "core": "CORE",
    "msgifsr": "MSGIFSR",
    "sequential-rules": "*sequential rules*",
    "vstan": "*VSTAN*",
    "v-sknn": "*V-SKNN*",
    "item-knn": "*item-kNN*",
    "sknn": "*session-kNN*",
    "pop": "*popularity*",
    "s-pop": "*session popularity*",
}
BESIDE = {RULES: "rules", REPEATS: "repeat-explore"}  # what a backbone's name tells, in words
COUNTED = list(NAMES)[15:]  # no gradient
Row = dict[str, Any]


def kept(results: Path, name: str) -> list[Row]:
    """Rows of a JSON; none where its command has not been run."""
    path = results / f"{name}.json"
    return list(json.loads(path.read_text())["details"]) if path.exists() else []


def place(row: Row) -> tuple[int, str, str]:
    """Where a row stands: by backbone, alone before with something beside it, bare before wrapped."""
    return list(NAMES).index(plain(row["backbone"])), row["backbone"], row["variant"]


def best_of(rows: list[Row]) -> dict[str, float]:
    """The best of each metric, as it is shown."""
    return {metric: max(round(row[metric]["mean"], 2) for row in rows) for metric in METRICS}


def line(cells: list[str]) -> str:
    """A row of a table; minus signs are minus signs."""
    return "| " + " | ".join(re.sub(r"(?<![\w.])-(?=\d)", "−", cell) for cell in cells) + " |"


def head(cells: list[str]) -> list[str]:
    return [line(cells), "|" + "---|" * len(cells)]


def percent(lift: Row | None, key: str = "interval") -> str:
    """A lift with its interval, bold where that leaves out 0."""
    if lift is None:
        return "–"
    text = f"{100 * lift['relative']:+.1f} %"
    if lift[key] is None:
        return text
    low, high = (100 * edge for edge in lift[key])
    text += f" [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def named(row: Row) -> str:
    """A model as the tables call it; few seeds are told."""
    backbone = plain(row["backbone"])
    name = NAMES[backbone]
    if backbone in COUNTED:
        return name
    name += "".join(f" with {told}" for suffix, told in BESIDE.items() if suffix in row["backbone"])
    name += {"bare": ", bare", "titles": ", wrapped, `titles`"}[row["variant"]]
    return name + few(row["seeds"])


def few(seeds: list[int]) -> str:
    """Tells where there were fewer seeds than three."""
    return {1: " (one seed)", 2: " (two seeds)"}.get(len(seeds), "")


def measured(row: Row, best: dict[str, float]) -> list[str]:
    """A row's metrics, with their standard deviations over seeds; the best of a table is bold."""
    cells = []
    for metric in METRICS:
        value, spread = row[metric]["mean"], row[metric]["std"]
        cell = f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
        cells.append(f"**{cell}**" if round(value, 2) == best[metric] else cell)
    return cells


def lifted(what: str, row: Row) -> str:
    """A model's lifts under its metrics."""
    return line([what, *(percent(row["lift"][metric]) for metric in LIFTED), ""])


def protocol(results: Path, data: str) -> Iterator[str]:
    """Every tested model of a data set, each pair with its lift; the best of a metric is bold."""
    rows = kept(results, f"protocol-{data}") + kept(results, f"protocol-{data}-one-seed")
    best = best_of(rows)
    yield from head([DATA[data], *SHOWN.values()])
    for row in sorted(rows, key=place):
        yield line([named(row), *measured(row, best)])
        if row["variant"] != "bare":
            yield lifted("lift", row)


def lifts(results: Path, name: str, key: str = "interval") -> Iterator[str]:
    """Lifts over bare, both data sets beside each other, and their average; `key` names their intervals."""
    rows = [row for row in kept(results, name) if key in row["recall@20"]]
    cells = [f"{data} {SHOWN[metric]}" for data in ("Beauty", "MovieLens") for metric in LIFTED]
    yield from head(["", *cells])
    found = {
        (row["backbone"], data): row for row in rows for data in DATA if f"protocol-{data}" in row["data"]
    }
    for backbone in [one for one in NAMES if any(row["backbone"] == one for row in rows)]:
        pair = [found.get((backbone, data), {}) for data in DATA]
        seeds = min((one["recall@20"]["seeds"] for one in pair if one), key=len)
        told = [
            NAMES[backbone] + few(seeds),
            *(percent(one.get(metric), key) for one in pair for metric in LIFTED),
        ]
        yield line(told)
    averages = [
        mean(row[metric]["relative"] for (_, of), row in found.items() if of == data)
        for data in DATA
        for metric in LIFTED
    ]
    yield line(["*average*", *(f"{100 * value:+.1f} %" for value in averages)])


def average(results: Path, name: str) -> Iterator[str]:
    """What wrapping brings on average over pairs of backbone and data set: several seeds, then all."""
    rows = kept(results, name)
    sure = [row for row in rows if len(row["recall@20"]["seeds"]) > 1]
    told = f"{len(sure)} pairs of backbone and data, three seeds each: {gained(sure)}"
    if len(rows) > len(sure):
        told += f"; with those of one seed, {len(rows)} pairs: {gained(rows)}"
    yield f"Average over {told} (`results/{name}.json`)."


def gained(rows: list[Row]) -> str:
    """Mean lifts in words."""
    return ", ".join(
        f"{100 * mean(row[one]['relative'] for row in rows):+.1f} % of {SHOWN[one]}" for one in LIFTED
    )


def where(results: Path) -> Iterator[str]:
    """Recall@20 by kinds of test examples, both data sets beside each other."""
    columns = ["number", "bare", "wrapped", "difference", "*rules*"]
    yield from head(
        [
            "test examples by",
            "",
            f"Beauty: {columns[0]}",
            *columns[1:],
            f"MovieLens: {columns[0]}",
            *columns[1:],
        ]
    )
    both = [[one for one in kept(results, f"where-{data}") if one["metric"] == "recall@20"] for data in DATA]
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
        cells = [NAMES[backbone]]
        for unit in ("ms_a_step", "seconds_an_epoch"):
            for rows in (cpu, gpu):
                pair = (rows.get((backbone, variant)) for variant in ("bare", "titles"))
                cells += ["–" if row is None else f"{row[unit]:.0f}" for row in pair]
        yield line(cells)
