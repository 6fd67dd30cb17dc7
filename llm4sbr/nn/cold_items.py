"""Rows of items without clicks, from their titles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_AT_ONCE = 1024  # new items in a product with all titles: bounds its memory
NEIGHBORS = 20


@torch.no_grad()
def cold_rows(rows: Tensor, titles: Tensor, new: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    r"""Rows of new items: the mean of the rows of the items with the nearest titles.

    Args:
        rows: Learned rows of known items.
        titles: Their title embeddings.
        new: Title embeddings of the new items.
        neighbors: Number of nearest titles; all if there are fewer.

    Shapes:
        - rows: ``(n, ...)``; titles: ``(n, d_t)``; new: ``(m, d_t)``; output: ``(m, ...)``
    """
    known, made = normalize(titles, dim=-1), []
    for part in torch.split(normalize(new, dim=-1).to(known), _AT_ONCE):
        similar, nearest = (part @ known.T).topk(min(neighbors, len(known)))  # (m', k)
        weight = similar.clamp_min(0) + 1e-6
        weight = (weight / weight.sum(1, keepdim=True)).to(rows)
        made.append(torch.einsum("mk,mk...->m...", weight, rows[nearest]))
    return torch.cat(made) if made else rows[:0]
