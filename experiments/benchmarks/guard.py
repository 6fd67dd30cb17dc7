"""Small runs of the benchmarks, compared with the ratios that an earlier run kept."""

from __future__ import annotations

import json as json_module
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.results import RESULTS, result, save
from llm4sbr.contracts.errors import InputError

SMALL = {  # benchmark: the words that make it small; a minute each on two cores
    "catalogue_ops": ["--repeats", "20"],
    "floors": ["--names", "[SRGNN, GRU4Rec, STAMP]", "--batches", "4"],
    "large_catalogue": ["--items", "50000", "--dim", "64", "--steps", "5", "--sessions", "64"],
    "wrapped_step": ["--names", "[SRGNN]", "--sizes", "[200]"],
}
KEPT = RESULTS / "guard.json"
WORSE = 0.15  # share by which a ratio may be worse; two runs on the same machine differ by half of it


def guard(only: list[str] | None = None, keep: bool = False, file: Path = KEPT) -> None:
    """Run the benchmarks small, and report every ratio that is over 15 % worse than the kept one.

    Only ratios of two things in one run are compared, so that another machine may run it. The exit status is
    1 if a ratio is worse.

    Example::

        python -m experiments benchmarks guard

    Args:
        only: Names of benchmarks; by default all that have a small run.
        keep: Whether to replace the kept ratios by those of this run.
        file: File of the kept ratios.
    """
    unknown = sorted(set(only or ()) - set(SMALL))
    if unknown:
        raise InputError(f"no small run of {', '.join(unknown)}", hint=f"There are {', '.join(SMALL)}")
    found = [one for name in only or SMALL for one in ratios(name, SMALL[name])]
    if keep:
        save(file, result("guard", found))
        return
    if not file.exists():
        raise InputError("no ratios are kept", path=file, hint="Run it once with --keep true")
    before = {one["what"]: one for one in json_module.loads(file.read_text())["rows"]}
    worse = compare(found, before)
    if worse:
        print(f"Over {WORSE:.0%} worse: {'; '.join(worse)}")
        raise SystemExit(1)


def ratios(name: str, words: list[str]) -> list[dict[str, Any]]:
    """Rows with a ratio of a small run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "experiments", "benchmarks", name, *words, "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = json_module.loads(out.read_text())["rows"]
    return [
        {**row, "what": f"{name}: {row['what']}"}
        for row in rows
        if row.get("better") and row["unit"] in ("ratio", "ratio of medians", "time")
    ]


def compare(found: list[dict[str, Any]], before: dict[str, dict[str, Any]]) -> list[str]:
    """Print both ratios of every row; return the rows that are worse by more than `WORSE`.

    >>> row = {"what": "a step over its floor", "value": 1.2, "better": "lower"}
    >>> compare([row], {})
    []
    """
    table, worse = Table("ratio", "kept", "now", "better", "change"), []
    for row in found:
        kept = before.get(row["what"])
        change = None if kept is None else row["value"] / kept["value"] - 1
        if change is not None and (change if row["better"] == "lower" else -change) > WORSE:
            worse.append(row["what"])
        then, by = ("", "new") if kept is None or change is None else (f"{kept['value']:g}", f"{change:+.0%}")
        table.add_row(row["what"], then, f"{row['value']:g}", row["better"], by)
    if before:
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    return worse
