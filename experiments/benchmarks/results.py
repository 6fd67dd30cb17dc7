"""The one form of all benchmarks' results, and a table of every row that was kept.

python experiments/benchmarks/results.py [experiments/results]
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric", "transformers", "sentence-transformers")


def row(
    what: str,
    value: float,
    unit: str,
    target: float | None = None,
    better: str = "higher",
    note: str = "",
) -> dict[str, Any]:
    """One measured figure; with a target, whether it is met."""
    found: dict[str, Any] = {"what": what, "value": float(f"{value:.4g}"), "unit": unit}
    if target is not None:
        met = value >= target if better == "higher" else value <= target
        found |= {"target": target, "better": better, "met": met}
    return found | {"note": note}


def keep(name: str, rows: Iterable[dict[str, Any]], path: Path | None, device: str = "cpu") -> None:
    """Print the rows, and write them where a path is given."""
    rows = list(rows)
    show([(name, one) for one in rows])
    if path is not None:
        write(name, rows, path, device)


def write(name: str, rows: Iterable[dict[str, Any]], path: Path, device: str = "cpu", **further: Any) -> None:
    """Write rows in the form that all our results share; `further` goes beside them."""
    result = {
        "benchmark": name,
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "device": device,
        "versions": {package: version(package) for package in PACKAGES},
        "rows": list(rows),
        **further,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def show(rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """A table for people."""
    table = Table("benchmark", "what", "value", "unit", "target", "met")
    for name, one in rows:
        sign = {"higher": "≥", "lower": "≤"}.get(one.get("better", ""), "")
        target = "" if one.get("target") is None else f"{sign} {one['target']:g}"
        met = {True: "yes", False: "NO", None: ""}[one.get("met")]
        table.add_row(name, one["what"], f"{one['value']:g}", one["unit"], target, met)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "results")
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [(one["benchmark"], part) for one in kept if "rows" in one for part in one["rows"]]
    show((name, part) for name, part in rows if part.get("target") is not None)


if __name__ == "__main__":
    main()
