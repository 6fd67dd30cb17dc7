"""The nearest neighbours of every item, counted in the training sessions."""

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
    latest,
    offsets,
    spread,
    table_of,
    tally,
)

Order = Literal["any", "later"]


class ItemNeighbors(NamedTuple):
    """The nearest neighbours of every item, grouped by item."""

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
    """Find the neighbours of every item, in blocks of items (formula: `llm4sbr.baselines.ItemKNN`).

    Args:
        examples: Training examples.
        num_items: ``V``.
        neighbors: Number of neighbours kept for each item; ties are broken by the higher item number.
        regularization: λ, which damps chance co-occurrences of rare items.
        alpha: Exponent of the query item's sessions; 0.5 is symmetric, 1 gives the confidence.
        order: Pairs to count: ``any`` counts two different items of a session once, at their latest clicks;
            ``later`` counts every click of a session with every later one, the same item included.
        pair_decay: Decay of a pair's weight with the number of clicks between its items.
        horizon: Number of clicks after which an ``exponential`` weight falls to 1/e.

    Raises:
        InputError: If there is no training session.
    """
    table = table_of(examples, every_click=order == "later")
    by_item = np.argsort(table.item, kind="stable")
    start = offsets(table.item, num_items + 1)  # (V + 2,)
    # (V,): |S_i|; an item that a session repeats counts once
    sessions = np.bincount(table.item[latest(table.session, table.item)], minlength=num_items + 1)[1:]
    size = np.diff(table.start)  # (S,) entries of each session
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
    query, item, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    return ItemNeighbors(num_items, offsets(query, num_items + 1), item, similarity)


class _Pairs(NamedTuple):
    """Pairs of a click on a query item and another click of the same session."""

    row: IntArray  # (P,) index of the query item
    other: IntArray  # (P,) entry of the other click in the table
    gap: IntArray  # (P,) clicks from the query item's click to the other one, positive if that is later


def _pairs(table: SessionTable, by_item: IntArray, start: IntArray, items: IntArray, order: Order) -> _Pairs:
    row, where = spread(start, items)
    entry = by_item[where]  # each click on a query item
    owner, other = spread(table.start, table.session[entry])
    gap = table.position[other] - table.position[entry][owner]
    paired = np.flatnonzero(gap > 0 if order == "later" else gap != 0)  # no click is its own pair
    return _Pairs(row[owner[paired]], other[paired], gap[paired])
