"""The tables of models with additional heads, and of the loss by repeated items."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from experiments.study.lifts import LIFTED, REPEATS, plain
from experiments.study.markdown import (
    BESIDE,
    DATA,
    SHOWN,
    best_of,
    head,
    kept,
    lifted,
    line,
    measured,
    named,
    ordered,
)
from experiments.study.names import title


def repeats(results: Path) -> Iterator[str]:
    """Make the table of validation metrics with the session's own items kept and barred."""
    shown = [SHOWN[metric] for metric in LIFTED]
    yield from head(["validation", *(f"{name}: {how}" for name in shown for how in ("all", "barred"))])
    rows = sorted(kept(results, "repeats"), key=lambda row: row["study"])
    for row in [row for _, of in groupby(rows, key=lambda row: row["study"]) for row in ordered(list(of))]:
        data = next(text.split(":")[0] for name, text in DATA.items() if f"protocol-{name}" in row["study"])
        what = f"{data}, {title(plain(row['backbone']))}, {'bare' if row['variant'] == 'bare' else 'wrapped'}"
        what += f" with {BESIDE[REPEATS]}" if REPEATS in row["backbone"] else ""
        values = [row[how][metric] for metric in LIFTED for how in ("kept", "barred")]
        yield line([what, *(f"{100 * value:.2f}" for value in values)])


def beside(results: Path, data: str, suffix: str) -> Iterator[str]:
    """Make the table of models without and with an additional head, and their lifts."""
    name, what = f"protocol-{data}-{suffix[1:]}", BESIDE[suffix]
    over_bare, over_plain, over_rules = (
        {row["backbone"]: row for row in kept(results, name + versus) if row["variant"] != "bare"}
        for versus in ("", "-vs-without", "-vs-rules")
    )
    counted = next(row for row in kept(results, f"protocol-{data}") if row["backbone"] == "sequential-rules")
    rows = kept(results, f"{name}-vs-without")
    with_it = {row["backbone"]: row for row in rows if row["variant"] == "bare"}
    rows = [row for row in rows if plain(row["backbone"]) + suffix in over_bare]
    best = best_of([counted, *rows])
    yield from head([DATA[data].split(":")[0], *SHOWN.values()])
    yield line([named(counted), *measured(counted, best)])
    for backbone, models in groupby(ordered(rows), key=lambda row: plain(row["backbone"])):
        for row in models:
            yield line([named(row), *measured(row, best)])
        both = backbone + suffix
        yield lifted(f"lift: bare with {what}, over bare without", with_it[both])
        yield lifted(f"lift: wrapped over bare, both with {what}", over_bare[both])
        yield lifted(f"lift: wrapped with {what}, over bare without", over_plain[both])
        yield lifted(f"lift: wrapped with {what}, over the sequential rules alone", over_rules[both])
