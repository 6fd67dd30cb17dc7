"""Time and memory of the preparation of a large log in parts, and of a start from the cache."""

from __future__ import annotations

import json as json_
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks.results import keep, row
from experiments.study.click_log import write_log
from experiments.study.memory_watch import peak
from llm4sbr.datamodules import KCore, SessionDataModule, SplitBy

ROOT = Path(__file__).resolve().parents[2]


def prepare(
    events: int = 100_000_000,
    items: int = 1_000_000,
    part: int = 5_000_000,
    folder: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure the preparation of a generated log in parts, in a process of its own.

    Sessions have power-law lengths and clicks power-law items; sessions overlap in time, so a session may lie
    in two parts. The preparation drops items with fewer than five clicks and sessions of one click, counted
    on training, splits by time and drops unseen items. A second process starts from the cache and gathers
    batches of random training examples.

    Example::

        python -m experiments benchmarks prepare --json experiments/results/prepare.json

    Args:
        events: Number of clicks.
        items: Number of items.
        part: Number of clicks in a part.
        folder: Folder of the generated log and the cache, which are deleted at the end.
        json: File for the rows.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.perf_counter()
        write_log(Path(place), events, items, part)
        written = time.perf_counter() - began
        first, again = (in_child(Path(place)) for _ in range(2))
        log = size(Path(place) / "events")
        entry = size(Path(place) / "cache")
    note = f"{events:,} clicks, {first['items']:,} of {items:,} items left, {first['examples']:,} examples"
    left = first["clicks"]
    keep(
        "prepare",
        [
            row("preparing, peak memory", first["peak"] / 2**30, "GiB", 16.0, "lower", note),
            row("preparing", first["seconds"] / 60, "minutes", note=note),
            row("preparing, peak memory a click", first["peak"] / events, "bytes"),
            row("a start from the cache", again["seconds"], "s"),
            row("a start from the cache, peak memory", again["peak"] / 2**30, "GiB"),
            row("10 batches of 1,000 random examples", again["batches"], "s"),
            row("cache entry, a click", entry / left, "bytes", note=f"{left:,} clicks in all splits"),
            row("the log, compressed", log / 2**30, "GiB", note=f"written in {written / 60:.1f} minutes"),
        ],
        json,
    )


def in_child(folder: Path) -> dict[str, float]:
    """Prepare or start in a process of its own, so that its peak is that of nothing else."""
    command = [sys.executable, "-m", "experiments.benchmarks.prepare", str(folder.resolve())]
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json_.loads(told.splitlines()[-1])
    return found


def measure(folder: Path) -> dict[str, float]:
    """Prepare the log of a folder, or start from its cache."""
    data = SessionDataModule(
        str(folder),
        "events",
        "items.parquet",
        kcore=KCore("train", min_item_clicks=5, min_session_length=2),
        split=SplitBy("temporal", unseen_items="drop"),
        session_graph=False,
        cache_dir=str(folder / "cache"),
    )
    began = time.perf_counter()
    data.prepare_data()
    seconds = time.perf_counter() - began
    splits = [data.examples(split) for split in ("train", "validate", "test")]
    dataset, dice = data.dataset_of("train"), np.random.default_rng(0)
    began = time.perf_counter()
    for _ in range(10):
        dataset.__getitems__(dice.integers(0, len(dataset), 1000).tolist())
    return {
        "seconds": seconds,
        "batches": time.perf_counter() - began,
        "peak": peak() * 2**20,
        "items": data.num_items,
        "examples": sum(map(len, splits)),
        "clicks": sum(len(one.clicks) for one in splits),
    }


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(json_.dumps(measure(Path(sys.argv[1]))))
