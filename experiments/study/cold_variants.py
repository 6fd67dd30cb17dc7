"""Ways to make the learned rows of items without clicks, for a comparison on validation sessions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from llm4sbr.nn.cold_items import cold_rows

Variant = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows (n, d), titles (n, d_t), new (m, d_t) -> (m, d)


def zeros(rows: Tensor, titles: Tensor, new: Tensor) -> Tensor:
    """No learned part: `ItemTitles` alone places the item."""
    return rows.new_zeros(len(new), rows.size(1))


def untrained(rows: Tensor, titles: Tensor, new: Tensor) -> Tensor:
    """A row as it is before training."""
    draw = torch.Generator().manual_seed(0)
    return (2 * torch.rand(len(new), rows.size(1), generator=draw) - 1) / math.sqrt(rows.size(1))


def share_of_mean(rows: Tensor, titles: Tensor, new: Tensor, share: float = 1.0) -> Tensor:
    """A share of the mean row, alike for all new items."""
    return (share * rows.mean(0)).expand(len(new), -1)


def ridge(rows: Tensor, titles: Tensor, new: Tensor, penalty: float = 1.0, of_mean: float = 1.0) -> Tensor:
    """A linear map of the titles to the rows, with a share of the mean row."""
    centre, mean = titles.mean(0), rows.mean(0)
    given = titles - centre
    normal = given.T @ given + penalty * torch.eye(titles.size(1))
    solved: Tensor = torch.linalg.solve(normal, given.T @ (rows - mean))  # (d_t, d)
    return (new - centre) @ solved + of_mean * mean


def near(
    rows: Tensor, titles: Tensor, new: Tensor, k: int = 5, strength: float = 1.0, of_mean: float = 1.0
) -> Tensor:
    """The nearest titles' rows less the mean row, at a part of their length, with a share of the mean row."""
    mean = rows.mean(0)
    return strength * (cold_rows(rows, titles, new, k, 1.0) - mean) + of_mean * mean


VARIANTS: dict[str, Variant] = {
    "half of 5 nearest titles (the package)": cold_rows,
    "zeros": zeros,
    "untrained": untrained,
    "the mean row": share_of_mean,
    "half the mean row": partial(share_of_mean, share=0.5),
    "the nearest title": partial(near, k=1),
    "3 nearest titles": partial(near, k=3),
    "5 nearest titles": near,
    "10 nearest titles": partial(near, k=10),
    "20 nearest titles": partial(near, k=20),
    "5 nearest titles less half the mean": partial(near, of_mean=0.5),
    "5 nearest titles less the mean": partial(near, of_mean=0.0),
    "half of 5 nearest titles less half the mean": partial(near, strength=0.5, of_mean=0.25),
    "ridge": ridge,
    "ridge less the mean": partial(ridge, of_mean=0.0),
}
