"""Split whole sessions into train, validate and test. Validation is always cut from training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from llm4sbr.contracts.errors import InputError

from .rules import SplitBy

_PARTS = {
    "train": "train",
    "training": "train",
    "valid": "validate",
    "validation": "validate",
    "val": "validate",
    "validate": "validate",
    "test": "test",
}


def split_sessions(
    clicks: pl.DataFrame, rules: SplitBy, seed: int, path: str | Path | None = None
) -> pl.DataFrame:
    """Add the column ``part``: train, validate or test, one value per session.

    Random cuts rank sessions by a hash of seed and session id, so they do not depend on the order of rows.

    Args:
        clicks: Table with ``session_id, item_id, timestamp`` and, for `column`, ``split``; the rows of a
            session are contiguous.
        rules: Options of the split.
        seed: Seed of the random cuts.
        path: Source of the clicks for error messages.

    Raises:
        InputError: If a session is in two splits, or a split name is unknown; the message names the session.
    """
    sessions = clicks.group_by("session_id", maintain_order=True).agg(
        pl.col("timestamp").max(), *([pl.col("split")] if rules.by == "column" else [])
    )
    ids = sessions["session_id"].to_list()
    if rules.by == "column":
        parts = _from_column(sessions, path)
    else:
        order = _latest_last(sessions) if rules.by == "temporal" else _shuffled(ids, seed, "test")
        parts = _cut(["train"] * len(ids), order, "test", rules.test_ratio)
    if "validate" not in parts:
        order = _latest_last(sessions) if rules.by == "temporal" else _shuffled(ids, seed, "validate")
        training = [row for row in order if parts[row] == "train"]
        parts = _cut(parts, training, "validate", rules.val_ratio)
    labels = pl.DataFrame(
        {"session_id": ids, "part": parts}, schema={"session_id": pl.String, "part": pl.String}
    )
    return clicks.join(labels, on="session_id", how="left", maintain_order="left")


def sample_sessions(clicks: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Keep a share of the sessions of each ``part``, at least one: the first in the order of a hash.

    The order does not depend on the share, so a smaller sample is a subset of a larger sample.
    """
    if share == 1:
        return clicks
    kept: list[str] = []
    for _, part in clicks.group_by("part"):
        ids = part["session_id"].unique().to_list()
        kept += [ids[row] for row in _shuffled(ids, seed, "sample")[: max(1, round(share * len(ids)))]]
    return clicks.filter(pl.col("session_id").is_in(kept))


def cut_at_random(ids: Sequence[str], seed: int, share: float) -> set[int]:
    """Positions of the validation sessions: none for a share of 0, otherwise at least one, and never all."""
    parts = _cut(["train"] * len(ids), _shuffled(ids, seed, "validate"), "validate", share)
    return {row for row, part in enumerate(parts) if part == "validate"}


def _cut(parts: Sequence[str], order: Sequence[int], name: str, share: float) -> list[str]:
    """Assign the part `name` to the last `share` of `order`: at least one session, never all."""
    parts = list(parts)
    count = min(max(1, round(share * len(order))), len(order) - 1) if share > 0 else 0
    for row in order[len(order) - count :] if count > 0 else ():
        parts[row] = name
    return parts


def _latest_last(sessions: pl.DataFrame) -> list[int]:
    """Rows by the session's last click; ties by session order."""
    rows: list[int] = sessions.with_row_index("_row").sort("timestamp", "_row")["_row"].to_list()
    return rows


def _shuffled(ids: Sequence[str], seed: int, purpose: str) -> list[int]:
    salt = f"{seed}:{purpose}:".encode()
    ranks = [hashlib.blake2b(salt + name.encode(), digest_size=16).digest() for name in ids]
    return sorted(range(len(ids)), key=ranks.__getitem__)


def _from_column(sessions: pl.DataFrame, path: str | Path | None) -> list[str]:
    parts = []
    for session, values in sessions.select("session_id", pl.col("split").list.unique()).iter_rows():
        if len(values) > 1:
            named = ", ".join(sorted(map(str, values)))
            raise InputError(
                f"session {session!r} is in two splits: {named}",
                path=path,
                hint="Give all its rows one split",
            )
        part = _PARTS.get(str(values[0]).strip().lower())
        if part is None:
            hint = "Use train, validate and test"
            raise InputError(
                f"session {session!r} has an unknown split", path=path, value=values[0], hint=hint
            )
        parts.append(part)
    return parts
