"""The common format of all benchmark results, and a table of the saved rows."""

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

RESULTS = Path(__file__).resolve().parents[1] / "results"
PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric", "transformers", "sentence-transformers")


def row(
    what: str,
    value: float,
    unit: str,
    target: float | None = None,
    better: str = "higher",
    note: str = "",
) -> dict[str, Any]:
    """Make a row of one measured value; with a target, it says whether the value meets the target."""
    found: dict[str, Any] = {"what": what, "value": float(f"{value:.4g}"), "unit": unit}
    if target is not None:
        met = value >= target if better == "higher" else value <= target
        found |= {"target": target, "better": better, "met": met}
    return found | {"note": note}


def keep(name: str, rows: Iterable[dict[str, Any]], path: Path | None, device: str = "cpu") -> None:
    """Print the rows, and write them to a file if a path is given."""
    rows = list(rows)
    show([(name, one) for one in rows])
    if path is not None:
        save(path, result(name, rows, device))


def result(name: str, rows: Iterable[dict[str, Any]], device: str = "cpu", **further: Any) -> dict[str, Any]:
    """Put rows into the common format of all results; `further` adds entries beside them."""
    return {
        "benchmark": name,
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "device": device,
        "versions": {package: version(package) for package in PACKAGES},
        "rows": list(rows),
        **further,
    }


def machine() -> str:
    """Return the processor and the number of threads of torch."""
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def command_line() -> str:
    """Return the running command as a person types it."""
    path = Path(sys.argv[0])
    words = ["-m", path.parent.name] if path.name == "__main__.py" else [sys.argv[0]]
    return shlex.join(["python", *words, *sys.argv[1:]])


def save(path: Path, found: Any) -> None:
    """Write JSON atomically: a killed run leaves no partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)


def show(rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Print a table of rows."""
    table = Table("benchmark", "what", "value", "unit", "target", "met")
    for name, one in rows:
        sign = {"higher": "≥", "lower": "≤"}.get(one.get("better", ""), "")
        target = "" if one.get("target") is None else f"{sign} {one['target']:g}"
        met = {True: "yes", False: "NO", None: ""}[one.get("met")]
        table.add_row(name, one["what"], f"{one['value']:g}", one["unit"], target, met)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def kept(results: Path = RESULTS) -> None:
    """Print every saved row that has a target, and whether it is met.

    Example::

        python -m experiments benchmarks kept

    Args:
        results: Folder of JSON files in the common format.
    """
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    rows = [(one["benchmark"], part) for one in found if "rows" in one for part in one["rows"]]
    show((name, part) for name, part in rows if part.get("target") is not None)
