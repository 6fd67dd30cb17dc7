"""Learned rows of items without clicks, from their titles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBORS, STRENGTH, OF_MEAN = 5, 0.5, 0.25
_AT_ONCE = 1024  # new items in a product with all titles: bounds its memory


@torch.no_grad()
def cold_rows(
    rows: Tensor,
    titles: Tensor,
    new: Tensor,
    neighbors: int = NEIGHBORS,
    strength: float = STRENGTH,
    of_mean: float = OF_MEAN,
) -> Tensor:
    r"""Rows of new items in a learned table, from the rows of the items with the nearest titles.

    .. math:: E_{new} = s \Big( \sum_{j \in top-k} w_j E_j - \bar E \Big) + m \bar E, \quad
        w_j = \frac{\max(\cos(t_{new}, t_j), 0)}{\sum_i \max(\cos(t_{new}, t_i), 0)}

    Args:
        rows: Learned rows of known items.
        titles: Their title embeddings.
        new: Title embeddings of the new items.
        neighbors: ``k``, number of nearest titles; all if there are fewer.
        strength: ``s``, factor of what the neighbours have in common.
        of_mean: ``m``, share of the mean row.

    Shapes:
        - rows: ``(n, ...)``; titles: ``(n, d_t)``; new: ``(m, d_t)``; output: ``(m, ...)``

    >>> rows, titles = torch.tensor([[4.0], [0.0]]), torch.eye(2)
    >>> cold_rows(rows, titles, titles[:1], strength=1.0, of_mean=1.0)
    tensor([[4.]])
    """
    known, mean, made = normalize(titles, dim=-1), rows.mean(0), [rows[:0]]
    for part in torch.split(normalize(new, dim=-1).to(known), _AT_ONCE):
        cosine, nearest = (part @ known.T).topk(min(neighbors, len(known)))  # (m', k)
        weight = cosine.clamp_min(1e-9)
        weight = (weight / weight.sum(1, keepdim=True)).to(rows)
        made.append(torch.einsum("mk,mk...->m...", weight, rows[nearest]))
    return strength * (torch.cat(made) - mean) + of_mean * mean
