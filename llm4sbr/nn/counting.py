"""Counting over sessions: training sessions as tables, weights of clicks by age, rows of unequal length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray

FloatArray = npt.NDArray[np.float64]
Decay = Literal["last", "uniform", "linear", "quadratic", "harmonic", "log", "exponential"]

# Weight of a click that lies `age` clicks back (0 = the last one) in a session of `length` clicks.
DECAYS: dict[Decay, Callable[[FloatArray, FloatArray, float], FloatArray]] = {
    "last": lambda age, length, horizon: (age == 0).astype(np.float64),
    "uniform": lambda age, length, horizon: np.ones_like(age),
    "linear": lambda age, length, horizon: 1 - age / length,
    "quadratic": lambda age, length, horizon: (1 - age / length) ** 2,
    "harmonic": lambda age, length, horizon: 1 / (1 + age),
    "log": lambda age, length, horizon: 1 / np.log10(age + 1.7),
    "exponential": lambda age, length, horizon: np.exp(-age / horizon),
}

BLOCK = 1 << 20  # numbers counted at a time: 8 MB an array, for the processor's cache


class SessionTable(NamedTuple):
    """The distinct items of every training session; ``N`` entries, session by session.

    Shapes:
        - start: ``(S + 1,)``; session ``s`` has the entries ``start[s]:start[s + 1]``
        - session, item, position: ``(N,)``; position (from 1) of the item's latest click in its session
        - length: ``(S,)`` clicks of each session
    """

    start: IntArray
    session: IntArray
    item: IntArray
    position: IntArray
    length: IntArray


def sessions_of(examples: Examples) -> list[IntArray]:
    """Clicks of each session, targets included.

    Raises:
        InputError: There is none.
    """
    sessions = examples.sessions()
    if not sessions:
        raise InputError("there is no training session to count", hint="Check the data module's split")
    return sessions


def table_of(examples: Examples) -> SessionTable:
    """The sessions of the examples as a table."""
    sessions = sessions_of(examples)
    length = np.array([len(clicks) for clicks in sessions], dtype=np.int64)
    item, session = np.concatenate(sessions), np.repeat(np.arange(len(sessions)), length)
    position = np.arange(len(item)) - np.repeat(np.cumsum(length) - length, length) + 1
    kept = latest(session, item)
    session = session[kept]
    return SessionTable(offsets(session, len(sessions)), session, item[kept], position[kept], length)


def latest(row: IntArray, item: IntArray) -> IntArray:
    """Where each row's distinct items stand last, by row and item."""
    key = row * (int(item.max(initial=0)) + 1) + item
    from_end: IntArray = np.unique(key[::-1], return_index=True)[1]
    return len(key) - 1 - from_end


def offsets(row: IntArray, num_rows: int) -> IntArray:
    """Where each row starts in a sorted list of row numbers, and where the last one ends: ``(R + 1,)``.

    >>> offsets(np.array([0, 0, 2]), 3).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate(([0], np.cumsum(np.bincount(row, minlength=num_rows)))).astype(np.int64)


def spread(start: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """All entries of some rows: which of `rows` each belongs to, and where it stands.

    >>> [part.tolist() for part in spread(np.array([0, 2, 2, 3]), np.array([2, 0, 2]))]
    [[0, 1, 1, 2], [2, 0, 1, 2]]
    """
    count = start[rows + 1] - start[rows]
    owner = np.repeat(np.arange(len(rows)), count)
    shift = start[rows] - (np.cumsum(count) - count)
    return owner, np.arange(len(owner)) + shift[owner]


def blocks(cost: IntArray, limit: int = BLOCK) -> Iterator[slice]:
    """Cut a list into consecutive blocks that cost at most `limit` each, or hold one element.

    >>> [(block.start, block.stop) for block in blocks(np.array([3, 3, 9, 1, 1]), limit=6)]
    [(0, 2), (2, 3), (3, 5)]
    """
    total, first = np.concatenate(([0], np.cumsum(cost))), 0
    while first < len(cost):
        last = int(np.searchsorted(total, total[first] + limit, side="right")) - 1
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)


def tally(cell: IntArray, value: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Sum of the values in each cell of a matrix; cells are numbered row by row."""
    total: FloatArray = np.asarray(np.bincount(cell, value, shape[0] * shape[1]), dtype=np.float64)
    return total.reshape(shape)


def largest(row: IntArray, value: FloatArray, count: int) -> IntArray:
    """Where the `count` largest values of each row stand; of equal ones the later entry wins.

    Args:
        row: Row of each entry, sorted.
        value: Compared in float32, so that sums of the same terms in another order tie.
        count: How many.

    >>> largest(np.array([0, 0, 0, 1]), np.array([2.0, 1.0, 2.0, 5.0]), 1).tolist()
    [2, 3]
    """
    start = offsets(row, int(row.max(initial=-1)) + 1)
    crowded = np.flatnonzero((np.diff(start) > count)[row])  # the others need no sorting
    crowded = crowded[::-1]  # sorting is stable, so the later of equals comes first
    order = crowded[np.lexsort((-value[crowded].astype(np.float32), row[crowded]))]
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    kept = np.ones(len(row), dtype=np.bool_)
    kept[order[place >= count]] = False
    return np.flatnonzero(kept)


def check_decay(**named: str) -> None:
    """Refuse an unknown decay, by the name of its setting."""
    for name, value in named.items():
        if value not in DECAYS:
            raise InputError(f"{name} must be one of {', '.join(DECAYS)}", value=value)
