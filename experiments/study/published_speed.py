"""The table of all benchmarks with a target, from their kept JSONs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.study.markdown import head, line

WORDS = {"higher": "≥", "lower": "≤"}


def speed(results: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Every row of the benchmarks that has a target.

    Args:
        results: Folder of the JSON files.
        names: Names of the benchmarks.
    """
    yield from head(["benchmark", "what", "measured", "target", "met"])
    for name in names:
        path = results / f"{name}.json"
        if not path.exists():
            continue
        for row in json.loads(path.read_text())["rows"]:
            if row.get("target") is None:
                continue
            target = f"{WORDS[row['better']]} {row['target']:g}"
            met = "yes" if row["met"] else "**no**"
            yield line([f"`{name}`", row["what"], f"{row['value']:g} {row['unit']}", target, met])
