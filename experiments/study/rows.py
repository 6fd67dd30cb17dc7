"""Conversion of fits to rows of a table and back: pure functions, without files.

A row is flat in the file: ``test/recall@20``, a list ``history/val/ndcg@20`` with one value per epoch, and
the rank of every test example, which paired intervals need. No metric uses ranks below 20, so ranks deeper
than `DEEPEST` are saved as a miss.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl

DEEPEST = 100  # the deepest rank that is saved
Row = dict[str, Any]
Run = dict[str, Any]  # a fit as commands use it: see `unpack`
_TEXTS = ("settings", "versions")  # mappings with mixed types, saved as JSON


class Key(NamedTuple):
    """Key of a fit in a study; a fit with `trial` is not tested, `what` names a variation of an ablation."""

    backbone: str
    variant: str
    seed: int
    trial: int | None = None
    what: str | None = None

    def __str__(self) -> str:
        """Return a readable name, which is also the name of the fit's folder."""
        parts = [self.backbone, self.variant, *([self.what] if self.what else [])]
        name = "-".join([*parts, f"trial-{self.trial:02d}" if self.trial is not None else str(self.seed)])
        kept = "".join(sign if sign.isalnum() or sign in "-+._" else "-" for sign in name.lower())
        return "-".join(part for part in kept.split("-") if part)


def key_of(run: Run) -> Key:
    """Return the key of a fit."""
    return Key(run["backbone"], run["variant"], run["seed"], run.get("trial"), run.get("what"))


def pack(run: Run) -> Row:
    """Convert a fit to a flat row.

    Args:
        run: Fit with the fields of `Key` and figures of any name. Of these, ``settings`` and ``versions`` are
            mappings, ``test`` maps metrics to values, ``history`` has such a mapping for each epoch, ``ranks
            (E,)`` are the ranks of the test examples (from 1, a half where scores tie), and ``session (E,)``
            numbers their sessions.
    """
    row: Row = {name: run.get(name) for name in Key._fields}
    for name, value in run.items():
        if name in _TEXTS:
            row[name] = json.dumps(value)
        elif name == "test":
            row |= value
        elif name == "history":
            metrics = dict.fromkeys(metric for epoch in value for metric in epoch)
            row |= {f"history/{metric}": [epoch.get(metric) for epoch in value] for metric in metrics}
        elif name == "ranks":
            ranks = np.asarray(value, dtype=np.float32)
            row["ranks"] = np.where(ranks <= DEEPEST, ranks, np.inf).astype(np.float32).tolist()
        elif name == "session":
            starts = np.flatnonzero(np.concatenate(([True], value[1:] != value[:-1])))
            row["session_sizes"] = np.diff(starts, append=len(value)).tolist()
        else:
            row[name] = value
    return row


def unpack(row: Row) -> Run:
    """Convert a flat row back to the fit of `pack`, with misses as ``inf`` and sessions numbered from 0.

    >>> kept = unpack(pack({"backbone": "SRGNN", "variant": "bare", "seed": 0, "test": {"test/mrr@20": 0.5},
    ...     "history": [{"val/mrr@20": 0.4}], "settings": {"lr": 0.1}, "ranks": np.array([1.0, 2.5, 7000.0]),
    ...     "session": np.array([4, 4, 9])}))
    >>> kept["ranks"].tolist(), kept["session"].tolist(), kept["test"], kept["history"], kept["settings"]
    ([1.0, 2.5, inf], [0, 0, 1], {'test/mrr@20': 0.5}, [{'val/mrr@20': 0.4}], {'lr': 0.1})
    """
    run: Run = {}
    epochs: list[dict[str, float]] = []
    for name, value in row.items():
        if value is None:
            continue
        if name in _TEXTS:
            run[name] = json.loads(value)
        elif name.startswith("test/"):
            run.setdefault("test", {})[name] = value
        elif name.startswith("history/"):
            epochs += [{} for _ in range(len(value) - len(epochs))]
            for epoch, one in zip(epochs, value, strict=True):
                epoch |= {} if one is None else {name.removeprefix("history/"): one}
        elif name == "ranks":
            run["ranks"] = np.asarray(value, dtype=np.float64)
        elif name == "session_sizes":
            run["session"] = np.repeat(np.arange(len(value)), value)
        else:
            run[name] = value
    return run | ({"history": epochs} if epochs else {})


def frame(rows: list[Row]) -> pl.DataFrame:
    """Make a table of rows; a missing figure is null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame(
        {name: pl.Series([row.get(name) for row in rows], dtype=_kind(name, rows)) for name in columns}
    )


def _kind(name: str, rows: list[Row]) -> pl.DataType | type[pl.DataType]:
    if name == "ranks":
        return pl.List(pl.Float32)
    if name == "session_sizes":
        return pl.List(pl.UInt16)
    if name.startswith("history/"):
        return pl.List(pl.Float64)
    if name in ("seed", "trial", "epochs", "best_epoch", "parameters"):
        return pl.Int64
    numbers = any(isinstance(row.get(name), float | int) for row in rows)
    return pl.Float64 if numbers else pl.String
