"""Cells and lines of the tables in README: pure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from experiments.study.grids import GRIDS
from experiments.study.lifts import LIFTED, METRICS, REPEATS, RULES, plain
from experiments.study.names import title

SHOWN = {"recall@5": "Recall@5", "recall@20": "Recall@20", "mrr@20": "MRR@20", "ndcg@20": "NDCG@20"}
DATA = {  # what a table is called, how many examples it has
    "beauty": "Beauty: 142,990 training, 15,727 validation, 17,422 test examples",
    "ml-100k": "MovieLens 100K: 79,099 training, 8,352 validation, 8,528 test examples",
}
BESIDE = {RULES: "rules", REPEATS: "repeat-explore"}  # what a model's name tells, in words
Row = dict[str, Any]


def kept(results: Path, name: str) -> list[Row]:
    """Rows of a JSON; none where its command has not been run."""
    path = results / f"{name}.json"
    return list(json.loads(path.read_text())["details"]) if path.exists() else []


def ordered(rows: list[Row]) -> list[Row]:
    """Rows as a table has them: backbones in the order in which they come, what only counts last.

    A backbone stands alone before it stands with something beside it, and bare before wrapped.
    """
    order = list(dict.fromkeys(plain(row["backbone"]) for row in rows))

    def place(row: Row) -> tuple[bool, int, str, str]:
        name = plain(row["backbone"])
        return name in GRIDS, order.index(name), row["backbone"], row["variant"]

    return sorted(rows, key=place)


def line(cells: list[str]) -> str:
    """A row of a table; minus signs are minus signs."""
    return "| " + " | ".join(re.sub(r"(?<![\w.])-(?=\d)", "−", cell) for cell in cells) + " |"


def head(cells: list[str]) -> list[str]:
    """The first two lines of a table."""
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
    """A model as the tables call it; fewer seeds than three are named."""
    backbone = plain(row["backbone"])
    if backbone in GRIDS:
        return f"*{GRIDS[backbone].title}*"
    name = title(backbone)
    name += "".join(f" with {what}" for suffix, what in BESIDE.items() if suffix in row["backbone"])
    return name + {"bare": ", bare", "titles": ", wrapped, `titles`"}[row["variant"]] + few(row["seeds"])


def few(seeds: list[int]) -> str:
    """Names the number of seeds where it is below three."""
    return {1: " (one seed)", 2: " (two seeds)"}.get(len(seeds), "")


def best_of(rows: list[Row]) -> dict[str, float]:
    """The best of each metric, as it is shown."""
    return {metric: max(round(row[metric]["mean"], 2) for row in rows) for metric in METRICS}


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
