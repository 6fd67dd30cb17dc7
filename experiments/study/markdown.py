"""Cells and lines of the tables in the documentation: pure functions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from experiments.study.grids import GRIDS
from experiments.study.lifts import LIFTED, METRICS, REPEATS, RULES, plain
from experiments.study.names import title

SHOWN = {"recall@5": "Recall@5", "recall@20": "Recall@20", "mrr@20": "MRR@20", "ndcg@20": "NDCG@20"}
DATA = {  # heading of a table, with the number of examples
    "beauty": "Beauty: 142,990 training, 15,727 validation, 17,422 test examples",
    "ml-100k": "MovieLens 100K: 79,099 training, 8,352 validation, 8,528 test examples",
}
BESIDE = {RULES: "rules", REPEATS: "repeat-explore"}  # suffixes of model names, in words
Row = dict[str, Any]


def kept(results: Path, name: str) -> list[Row]:
    """Read the rows of a JSON file; empty if the file does not exist."""
    path = results / f"{name}.json"
    return list(json.loads(path.read_text())["details"]) if path.exists() else []


def ordered(rows: list[Row]) -> list[Row]:
    """Sort rows for a table: backbones in the order of the input, count-based baselines last.

    Within a backbone, models without additions come first, and bare comes before wrapped.
    """
    order = list(dict.fromkeys(plain(row["backbone"]) for row in rows))

    def place(row: Row) -> tuple[bool, int, str, str]:
        name = plain(row["backbone"])
        return name in GRIDS, order.index(name), row["backbone"], row["variant"]

    return sorted(rows, key=place)


def line(cells: list[str]) -> str:
    """Format a row of a table; hyphens before numbers become minus signs."""
    return "| " + " | ".join(re.sub(r"(?<![\w.])-(?=\d)", "−", cell) for cell in cells) + " |"


def head(cells: list[str]) -> list[str]:
    """Format the first two lines of a table."""
    return [line(cells), "|" + "---|" * len(cells)]


def percent(lift: Row | None, key: str = "interval") -> str:
    """Format a lift with its interval, in bold if the interval excludes 0."""
    if lift is None:
        return "–"
    text = f"{100 * lift['relative']:+.1f} %"
    if lift[key] is None:
        return text
    low, high = (100 * edge for edge in lift[key])
    text += f" [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def named(row: Row) -> str:
    """Return the name of a model in tables, with the number of seeds if it is below three."""
    backbone = plain(row["backbone"])
    if backbone in GRIDS:
        return f"*{GRIDS[backbone].title}*"
    name = title(backbone)
    name += "".join(f" with {what}" for suffix, what in BESIDE.items() if suffix in row["backbone"])
    return name + {"bare": ", bare", "titles": ", wrapped, `titles`"}[row["variant"]] + few(row["seeds"])


def few(seeds: list[int]) -> str:
    """Format the number of seeds if it is below three, else nothing."""
    return {1: " (one seed)", 2: " (two seeds)"}.get(len(seeds), "")


def best_of(rows: list[Row]) -> dict[str, float]:
    """Return the best value of each metric, rounded as shown."""
    return {metric: max(round(row[metric]["mean"], 2) for row in rows) for metric in METRICS}


def measured(row: Row, best: dict[str, float]) -> list[str]:
    """Format the metrics of a row with their standard deviations over seeds; the best values are bold."""
    cells = []
    for metric in METRICS:
        value, spread = row[metric]["mean"], row[metric]["std"]
        cell = f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
        cells.append(f"**{cell}**" if round(value, 2) == best[metric] else cell)
    return cells


def lifted(what: str, row: Row) -> str:
    """Format the row of a model's lifts."""
    return line([what, *(percent(row["lift"][metric]) for metric in LIFTED), ""])
