"""Counting over sessions: training sessions as a table, decay of click weights, rows of unequal length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray

FloatArray = npt.NDArray[np.float64]
Decay = Literal["last", "uniform", "linear", "quadratic", "harmonic", "log", "exponential"]

# Weight of the click that is `age` clicks before the last one (0 = the last) in a session of `length` clicks.
DECAYS: dict[Decay, Callable[[FloatArray, FloatArray, float], FloatArray]] = {
    "last": lambda age, length, horizon: (age == 0).astype(np.float64),
    "uniform": lambda age, length, horizon: np.ones_like(age),
    "linear": lambda age, length, horizon: 1 - age / length,
    "quadratic": lambda age, length, horizon: (1 - age / length) ** 2,
    "harmonic": lambda age, length, horizon: 1 / (1 + age),
    "log": lambda age, length, horizon: 1 / np.log10(age + 1.7),
    "exponential": lambda age, length, horizon: np.exp(-age / horizon),
}

BLOCK = 1 << 20  # numbers per block: 8 MB per array, which fits the processor's cache


class SessionTable(NamedTuple):
    """Clicks of every training session, all or the latest of each item; ``N`` entries, grouped by session.

    Shapes:
        - start: ``(S + 1,)``; session ``s`` has the entries ``start[s]:start[s + 1]``
        - session, item, position: ``(N,)``; position of the click in its session, from 1
        - length: ``(S,)`` clicks of each session
    """

    start: IntArray
    session: IntArray
    item: IntArray
    position: IntArray
    length: IntArray


def sessions_of(examples: Examples) -> list[IntArray]:
    """Clicks of each session, including the targets.

    Raises:
        InputError: If there is no session.
    """
    sessions = examples.sessions()
    if not sessions:
        raise InputError("there is no training session to count", hint="Check the data module's split")
    return sessions


def table_of(examples: Examples, every_click: bool = False) -> SessionTable:
    """Convert the sessions of the examples to a table.

    Args:
        examples: Training examples.
        every_click: Whether an item that a session repeats has an entry for each click, in click order; by
            default it has one entry, its latest click, and entries are sorted by item.
    """
    sessions = sessions_of(examples)
    length = np.array([len(clicks) for clicks in sessions], dtype=np.int64)
    item, session = np.concatenate(sessions).astype(np.int64), np.repeat(np.arange(len(sessions)), length)
    position = np.arange(len(item)) - np.repeat(np.cumsum(length) - length, length) + 1
    kept = np.arange(len(item)) if every_click else latest(session, item)
    session = session[kept]
    return SessionTable(offsets(session, len(sessions)), session, item[kept], position[kept], length)


def share_of_repeats(examples: Examples) -> float:
    """Share of all clicks but the first of each session that are on an item clicked before in the session.

    >>> from llm4sbr.testing import make_examples
    >>> share_of_repeats(make_examples([[1, 2, 1], [3, 4, 5]]))
    0.25
    """
    sessions = sessions_of(examples)
    later = sum(len(clicks) - 1 for clicks in sessions)
    return sum(len(clicks) - len(np.unique(clicks)) for clicks in sessions) / max(later, 1)


def latest(row: IntArray, item: IntArray) -> IntArray:
    """Indices of the last entry of each distinct (row, item) pair, sorted by row and item."""
    key = row * (int(item.max(initial=0)) + 1) + item
    from_end: IntArray = np.unique(key[::-1], return_index=True)[1]
    return len(key) - 1 - from_end


def offsets(row: IntArray, num_rows: int) -> IntArray:
    """Start of each row in a sorted list of row numbers, and the end of the last row: ``(R + 1,)``.

    >>> offsets(np.array([0, 0, 2]), 3).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate(([0], np.cumsum(np.bincount(row, minlength=num_rows)))).astype(np.int64)


def spread(start: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Indices of all entries of the given rows, and for each the index of its row in `rows`.

    Returns:
        Index into `rows`, and index of the entry.

    >>> [part.tolist() for part in spread(np.array([0, 2, 2, 3]), np.array([2, 0, 2]))]
    [[0, 1, 1, 2], [2, 0, 1, 2]]
    """
    count = start[rows + 1] - start[rows]
    owner = np.repeat(np.arange(len(rows)), count)
    shift = start[rows] - (np.cumsum(count) - count)
    return owner, np.arange(len(owner)) + shift[owner]


def blocks(cost: IntArray, limit: int = BLOCK) -> Iterator[slice]:
    """Cut a list into consecutive blocks; each costs at most `limit` or holds one element.

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
    """Indices of the `count` largest values of each row; among equal values the later entry wins.

    Args:
        row: Row of each entry, sorted.
        value: Value of each entry, compared in float32 so that sums of the same terms in another order tie.
        count: Number of entries to keep per row.

    >>> largest(np.array([0, 0, 0, 1]), np.array([2.0, 1.0, 2.0, 5.0]), 1).tolist()
    [2, 3]
    """
    start = offsets(row, int(row.max(initial=-1)) + 1)
    crowded = np.flatnonzero((np.diff(start) > count)[row])  # the other rows need no sorting
    crowded = crowded[::-1]  # the sort is stable, so the later of equal entries comes first
    order = crowded[np.lexsort((-value[crowded].astype(np.float32), row[crowded]))]
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    kept = np.ones(len(row), dtype=np.bool_)
    kept[order[place >= count]] = False
    return np.flatnonzero(kept)


def check_decay(**named: str) -> None:
    """Check decays given as setting name to value.

    Raises:
        InputError: If a value is not one of `DECAYS`.
    """
    for name, value in named.items():
        if value not in DECAYS:
            raise InputError(f"{name} must be one of {', '.join(DECAYS)}", value=value)
