"""The nearest items of every item, counted in the training sessions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.nn.counting import (
    DECAYS,
    Decay,
    FloatArray,
    SessionTable,
    blocks,
    largest,
    offsets,
    spread,
    table_of,
    tally,
)

Order = Literal["any", "later"]


class ItemNeighbors(NamedTuple):
    """The nearest items of every item, item by item."""

    num_items: int
    start: IntArray  # (V + 2,): item k has the entries start[k]:start[k + 1]; item 0 has none
    item: IntArray  # (M,) in 1..V
    similarity: FloatArray  # (M,) > 0


def count_item_neighbors(
    examples: Examples,
    num_items: int,
    *,
    neighbors: int = 100,
    regularization: float = 20.0,
    alpha: float = 0.5,
    order: Order = "any",
    pair_decay: Decay = "uniform",
    horizon: float = 2.0,
) -> ItemNeighbors:
    """Find the neighbours of every item, some items at a time (`llm4sbr.baselines.ItemKNN` has the formula).

    Args:
        examples: The training examples.
        num_items: ``V``.
        neighbors: Similar items kept for each item; of equal ones those with the higher number.
        regularization: Keeps chance co-occurrences of rare items down.
        alpha: 0.5 treats both items alike, 1 divides by the clicked item's sessions alone (confidence).
        order: Count all pairs, or only items clicked ``later`` than the asking one.
        pair_decay: Weight of a pair by the clicks between the two.
        horizon: Clicks in which an ``exponential`` weight falls to 1/e.

    Raises:
        InputError: There is no training session.
    """
    table = table_of(examples)
    by_item = np.argsort(table.item, kind="stable")
    start = offsets(table.item, num_items + 1)  # (V + 2,)
    sessions = np.diff(start)[1:]  # (V,): |S_i|
    size = np.diff(table.start)  # (S,) distinct items of each session
    pairs = np.bincount(table.item, size[table.session], num_items + 1)[1:].astype(np.int64)
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    for block in blocks(pairs + num_items):
        items = np.arange(block.start, block.stop) + 1
        entries = _pairs(table, by_item, start, items, order)
        length = table.length[table.session[entries.other]].astype(np.float64)
        weight = DECAYS[pair_decay](np.abs(entries.gap) - 1.0, length, horizon)
        cell = entries.row * num_items + table.item[entries.other] - 1
        count = tally(cell, weight, (len(items), num_items))  # (block, V)
        own = (sessions[block] + regularization)[:, None] ** alpha
        count /= np.maximum(own * (sessions + regularization) ** (1 - alpha), 1e-12)
        row, column = np.nonzero(count)
        similarity = count[row, column]
        kept = largest(row, similarity, neighbors)
        found.append((items[row[kept]], column[kept] + 1, similarity[kept]))
    asking, item, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    return ItemNeighbors(num_items, offsets(asking, num_items + 1), item, similarity)


class _Pairs(NamedTuple):
    """Clicks that share a session with one of some asking items."""

    row: IntArray  # (P,) which of the asking items
    other: IntArray  # (P,) the other click's entry in the table
    gap: IntArray  # (P,) clicks from the asking item to the other, above 0 if later


def _pairs(table: SessionTable, by_item: IntArray, start: IntArray, items: IntArray, order: Order) -> _Pairs:
    row, where = spread(start, items)
    entry = by_item[where]  # the asking item's entry in each of its sessions
    owner, other = spread(table.start, table.session[entry])
    gap = table.position[other] - table.position[entry][owner]
    paired = np.flatnonzero(gap > 0 if order == "later" else gap != 0)  # no item is its own neighbour
    return _Pairs(row[owner[paired]], other[paired], gap[paired])
