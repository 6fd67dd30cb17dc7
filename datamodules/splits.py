"""Split whole sessions into train, validate and test. Validation is always cut from training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from llm4sbr.contracts.errors import InputError

from .clicks import ClickTable, blocks
from .rules import SplitBy

TRAIN, VALIDATE, TEST, ABSENT = range(4)  # parts; a session without clicks is absent
Parts = npt.NDArray[np.uint8]
_Order = npt.NDArray[np.int64]
_PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALIDATE,
    "validation": VALIDATE,
    "val": VALIDATE,
    "validate": VALIDATE,
    "test": TEST,
}


def split_sessions(clicks: ClickTable, rules: SplitBy, seed: int, path: str | Path | None = None) -> Parts:
    """Assign each session to a part.

    Random cuts rank sessions by a hash of seed and session id, so they do not depend on the order of rows.

    Args:
        clicks: Clicks of sessions, grouped by session and sorted by time; with the split, for `column`.
        rules: Options of the split.
        seed: Seed of the random cuts.
        path: Source of the clicks for error messages.

    Returns:
        `TRAIN`, `VALIDATE` or `TEST` for each of `clicks.keys`; `ABSENT` for a session without clicks.

    Raises:
        InputError: If a session is in two splits, or a split name is unknown; the message names the session.

    Shapes:
        - output: ``(K,)``
    """
    starts = clicks.starts()  # (S,)
    session = clicks.key[starts]  # (S,)
    ids = clicks.keys.gather(session)
    last = clicks.time[np.append(starts[1:], len(clicks)) - 1] if len(clicks) else clicks.time  # (S,)

    def order(purpose: str) -> _Order:
        return np.argsort(last, kind="stable") if rules.by == "temporal" else _shuffled(ids, seed, purpose)

    if rules.by == "column":
        parts = _from_column(clicks, starts, ids, path)
    else:
        parts = np.full(len(session), TRAIN, dtype=np.uint8)
        _cut(parts, order("test"), TEST, rules.test_ratio)
    if not (parts == VALIDATE).any():
        ranked = order("validate")
        _cut(parts, ranked[parts[ranked] == TRAIN], VALIDATE, rules.val_ratio)
    every = np.full(len(clicks.keys), ABSENT, dtype=np.uint8)
    every[session] = parts
    return every


def sample_sessions(clicks: ClickTable, parts: Parts, share: float, seed: int) -> ClickTable:
    """Keep a share of the sessions of each part, at least one: the first in the order of a hash.

    The order does not depend on the share, so a smaller sample is a subset of a larger sample.

    Shapes:
        - parts: ``(K,)``
    """
    if share == 1:
        return clicks
    present = np.unique(clicks.key)
    kept = np.zeros(len(clicks.keys), dtype=np.bool_)
    for part in (TRAIN, VALIDATE, TEST):
        sessions = present[parts[present] == part]
        ranked = _shuffled(clicks.keys.gather(sessions), seed, "sample")
        kept[sessions[ranked[: max(1, round(share * len(sessions)))]]] = True
    return clicks.take(kept[clicks.key])


def cut_at_random(ids: Sequence[str], seed: int, share: float) -> set[int]:
    """Positions of the validation sessions: none for a share of 0, otherwise at least one, and never all."""
    parts = np.full(len(ids), TRAIN, dtype=np.uint8)
    _cut(parts, _shuffled(pl.Series(ids, dtype=pl.String), seed, "validate"), VALIDATE, share)
    return set(np.flatnonzero(parts == VALIDATE).tolist())


def _cut(parts: Parts, order: _Order, part: int, share: float) -> None:
    """Assign a part to the last `share` of `order`: at least one session, never all."""
    count = min(max(1, round(share * len(order))), len(order) - 1) if share > 0 else 0
    if count > 0:
        parts[order[len(order) - count :]] = part


def _shuffled(ids: pl.Series, seed: int, purpose: str) -> _Order:
    """Places of the ids in the order of a hash of seed, purpose and id."""
    salt = f"{seed}:{purpose}:".encode()
    digests = bytearray()
    for block in blocks(len(ids)):
        for name in ids[block].to_list():
            digests += hashlib.blake2b(salt + name.encode(), digest_size=16).digest()
    halves = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)  # compares like the bytes
    return np.lexsort((halves[:, 1], halves[:, 0]))


def _from_column(clicks: ClickTable, starts: _Order, ids: pl.Series, path: str | Path | None) -> Parts:
    assert clicks.split is not None
    names = clicks.splits
    lengths = np.diff(np.append(starts, len(clicks)))  # (S,)
    split = clicks.split[starts]  # (S,)
    differs = clicks.split != np.repeat(split, lengths)
    mixed = np.zeros(len(starts), dtype=np.bool_)
    mixed[np.searchsorted(starts, np.flatnonzero(differs), side="right") - 1] = True
    part_of = np.array([_PARTS.get(str(name).strip().lower(), ABSENT) for name in names], dtype=np.uint8)
    parts: Parts = part_of[split]
    bad = np.flatnonzero(mixed | (parts == ABSENT))
    if not len(bad):
        return parts
    at = int(bad[0])
    if mixed[at]:
        own = np.unique(clicks.split[starts[at] : starts[at] + lengths[at]])
        named = ", ".join(sorted(str(names[number]) for number in own))
        raise InputError(
            f"session {ids[at]!r} is in two splits: {named}", path=path, hint="Give all its rows one split"
        )
    value, hint = names[int(split[at])], "Use train, validate and test"
    raise InputError(f"session {ids[at]!r} has an unknown split", path=path, value=value, hint=hint)
