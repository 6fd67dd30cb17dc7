"""A generated log of clicks, to try what a shop's size needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

LONGEST, EXPONENT = 200, 1.8  # of a session, with a power law of lengths: 5 clicks on average
START, PER_SECOND = 1_700_000_000, 400  # time of the first click, and new sessions a second
GAP = 40.0  # seconds between two clicks of a session, on average


def make_log(out: Path, events: int = 1_000_000, items: int = 1_000_000, part: int = 5_000_000) -> None:
    """Write a log of random clicks in Parquet parts: ``events/`` and ``items.parquet``.

    Sessions have power-law lengths and clicks power-law items; sessions overlap in time. Nothing can be
    learned from it but the popularity of the items.

    Example::

        python -m experiments make_log --out shop

    Args:
        out: New folder.
        events: Number of clicks.
        items: Number of items.
        part: Number of clicks in a part.
    """
    out.mkdir(parents=True)
    write_log(out, events, items, part)


def write_log(folder: Path, events: int, items: int, part: int, seed: int = 0) -> None:
    """Write ``events/`` in parts, in the order of time, and ``items.parquet``."""
    (folder / "events").mkdir()
    names = np.random.default_rng(seed).permutation(items)  # a popular item is not a small number
    titles = pl.Series(names).cast(pl.String)
    pl.DataFrame({"item_id": titles, "title": "Item no. " + titles}).write_parquet(folder / "items.parquet")
    for number, table in enumerate(parts(events, names, part, seed)):
        table.write_parquet(folder / "events" / f"part-{number:04}.parquet")


def parts(events: int, names: np.ndarray, part: int, seed: int) -> Iterator[pl.DataFrame]:
    """Tables of clicks in the order of time; a part ends with its last new session's start."""
    dice = np.random.default_rng(seed)
    share = np.cumsum(np.arange(1, LONGEST + 1) ** -EXPONENT)
    held: list[pl.DataFrame] = []
    sessions = written = 0
    while written < events:
        lengths = 1 + np.searchsorted(share / share[-1], dice.random(part // 3))
        lengths = lengths[np.cumsum(lengths) <= part]
        first = np.cumsum(lengths) - lengths
        begin = START + (sessions + np.arange(len(lengths))) / PER_SECOND
        gaps = dice.exponential(GAP, int(lengths.sum()))
        gaps[first] = 0
        since = np.cumsum(gaps)
        table = pl.DataFrame(
            {
                "session_id": np.repeat(sessions + np.arange(len(lengths)), lengths),
                "item_id": names[(len(names) ** dice.random(len(gaps))).astype(np.int64) - 1],
                "timestamp": np.repeat(begin - since[first], lengths) + since,
            }
        )
        sessions += len(lengths)
        table = pl.concat([*held, table]).sort("timestamp")
        done = table["timestamp"] <= begin[-1]
        held = [table.filter(~done)]
        ready = (table.filter(done) if written + int(done.sum()) < events else table)[: events - written]
        written += ready.height
        yield ready
