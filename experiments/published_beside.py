"""The tables of models with something beside them, and of what clicked items cost; publish.py writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from published import BESIDE, DATA, NAMES, SHOWN, best_of, head, kept, lifted, line, measured, named, place
from table import LIFTED, REPEATS, plain


def clicked(results: Path) -> Iterator[str]:
    """What models lose to the session's own items, validation; bare and wrapped under each other."""
    path = results / "clicked.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    shown = {metric: SHOWN[metric] for metric in LIFTED}
    yield from head(
        ["validation", *(f"{name}: {how}" for name in shown.values() for how in ("all", "barred"))]
    )

    def stands(key: str) -> tuple[str, int, str]:
        folder, (backbone, variant, _) = key.split("/")[0], key.split("/")[1].split("-")
        return folder, list(NAMES).index(backbone), variant

    for key in sorted(rows, key=stands):
        folder, position, variant = stands(key)
        data = next(told.split(":")[0] for name, told in DATA.items() if f"protocol-{name}" in folder)
        what = f"{data}, {list(NAMES.values())[position]}, {'bare' if variant == 'bare' else 'wrapped'}"
        what += f" with {BESIDE[REPEATS]}" if folder.endswith(REPEATS[1:]) else ""
        found = [rows[key][how][metric] for metric in shown for how in ("kept", "barred")]
        yield line([what, *(f"{100 * value:.2f}" for value in found)])


def beside(results: Path, data: str, suffix: str) -> Iterator[str]:
    """Models that were tested with something beside them: without, with, and what each is ahead of."""
    name, told = f"protocol-{data}-{suffix[1:]}", BESIDE[suffix]
    over_bare, over_plain, over_rules = (
        {row["backbone"]: row for row in kept(results, name + versus) if row["variant"] != "bare"}
        for versus in ("", "-vs-without", "-vs-rules")
    )
    counted = next(row for row in kept(results, f"protocol-{data}") if row["backbone"] == "sequential-rules")
    with_it = {
        row["backbone"]: row for row in kept(results, f"{name}-vs-without") if row["variant"] == "bare"
    }
    rows = [
        row for row in kept(results, f"{name}-vs-without") if plain(row["backbone"]) + suffix in over_bare
    ]
    best = best_of([counted, *rows])
    yield from head([DATA[data].split(":")[0], *SHOWN.values()])
    yield line([named(counted), *measured(counted, best)])
    for backbone, models in groupby(sorted(rows, key=place), key=lambda row: plain(row["backbone"])):
        for row in models:
            yield line([named(row), *measured(row, best)])
        both = backbone + suffix
        yield lifted(f"lift: bare with {told}, over bare without", with_it[both])
        yield lifted(f"lift: wrapped over bare, both with {told}", over_bare[both])
        yield lifted(f"lift: wrapped with {told}, over bare without", over_plain[both])
        yield lifted(f"lift: wrapped with {told}, over the sequential rules alone", over_rules[both])
