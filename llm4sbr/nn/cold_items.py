"""Learned rows of items without clicks, from their titles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBORS, STRENGTH = 5, 0.5
_AT_ONCE = 1024  # new items in a product with all titles: bounds its memory


@torch.no_grad()
def cold_rows(
    rows: Tensor, titles: Tensor, new: Tensor, neighbors: int = NEIGHBORS, strength: float = STRENGTH
) -> Tensor:
    r"""Rows of new items in a learned table, from the rows of the items with the nearest titles (ours).

    .. math:: E_{new} = s \sum_{j \in top-k} w_j E_j, \quad
        w_j = \frac{\max(\cos(t_{new}, t_j), 0)}{\sum_i \max(\cos(t_{new}, t_i), 0)}

    ``k`` and ``s`` were chosen on validation sessions of MovieLens 100K and Beauty with held-out items, for
    SR-GNN with `ItemTitles` under cosines (``python -m experiments new_items``; docs/serving.md has the
    table). With ``s = 1/2`` the item's own title, which `ItemTitles` adds, counts more than what its
    neighbours have learned. The mean of all rows holds what items share that are seldom the target: rows
    without it, such as zeros, untrained rows or neighbours less the mean, recommend new items more, and take
    3 to 10 % of the Recall from the other items; the mean row alone and a linear map of the titles hardly
    recommend new items.

    Args:
        rows: Learned rows of known items.
        titles: Their title embeddings.
        new: Title embeddings of the new items.
        neighbors: ``k``, number of nearest titles; all if there are fewer.
        strength: ``s``, factor of the neighbours' mean.

    Shapes:
        - rows: ``(n, ...)``; titles: ``(n, d_t)``; new: ``(m, d_t)``; output: ``(m, ...)``

    >>> rows, titles = torch.tensor([[4.0], [0.0]]), torch.eye(2)
    >>> cold_rows(rows, titles, titles[:1]).tolist()
    [[2.0]]
    """
    known, made = normalize(titles, dim=-1), [rows[:0]]
    for part in torch.split(normalize(new, dim=-1).to(known), _AT_ONCE):
        cosine, nearest = (part @ known.T).topk(min(neighbors, len(known)))  # (m', k)
        weight = cosine.clamp_min(1e-9)
        weight = (weight / weight.sum(1, keepdim=True)).to(rows)
        made.append(torch.einsum("mk,mk...->m...", weight, rows[nearest]))
    return strength * torch.cat(made)
