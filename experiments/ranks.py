"""The rank of every test example, small enough to stay in a result's JSON: paired intervals need it.

No metric here looks below rank 20, so a rank up to 100 is kept to its half and a deeper one as a miss: a byte
an example, compressed, about 8 KB for Beauty's 17,422.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

DEEPEST = 100  # the deepest rank that is kept
_MISS = 255


def pack(ranks: np.ndarray, session: np.ndarray) -> dict[str, str]:
    """What a result keeps: ranks and sessions of the test examples, in example order.

    Args:
        ranks: ``(E,)``, 1 or more, halves where scores tied.
        session: ``(E,)``, number of each example's session; a session's examples follow each other.

    >>> kept = pack(np.array([1.0, 2.5, 7000.0]), np.array([4, 4, 9]))
    >>> [array.tolist() for array in unpack(kept)]
    [[1.0, 2.5, inf], [0, 0, 1]]
    """
    halves = np.where(ranks <= DEEPEST, 2 * ranks, _MISS).astype(np.uint8)
    starts = np.concatenate(([False], session[1:] != session[:-1])).astype(np.uint8)
    return {"test_ranks": _text(halves), "test_sessions": _text(np.packbits(starts))}


def unpack(result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Ranks (``inf`` for a miss) and sessions, counted from 0; None where a result has none."""
    if "test_ranks" not in result:
        return None
    halves = _array(result["test_ranks"])
    ranks = np.where(halves == _MISS, np.inf, halves / 2)
    starts = np.unpackbits(_array(result["test_sessions"]), count=len(ranks))
    return ranks, np.cumsum(starts)


def _text(array: np.ndarray) -> str:
    return base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()


def _array(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
