"""Learned rows of items without clicks, from their titles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBORS, OF_MEAN = 5, 0.5
_AT_ONCE = 1024  # new items in a product with all titles: bounds its memory


@torch.no_grad()
def cold_rows(
    rows: Tensor, titles: Tensor, new: Tensor, neighbors: int = NEIGHBORS, of_mean: float = OF_MEAN
) -> Tensor:
    r"""Rows of new items in a learned table, from the rows of the items with the nearest titles (ours).

    .. math:: E_{new} = \sum_{j \in top-k} w_j E_j - (1 - m) \bar E, \quad
        w_j = \frac{\max(\cos(t_{new}, t_j), 0)}{\sum_i \max(\cos(t_{new}, t_i), 0)}

    The mean row :math:`\bar E` holds what all items share: training lowers with it the scores of items that
    are seldom the target. With all of it (``m = 1``) new items are hardly recommended; without it
    (``m = 0``) they take more places from the other items than after training with them. ``k`` and ``m``
    were chosen on validation sessions of MovieLens 100K and Beauty, for SR-GNN with `ItemTitles` under
    cosines, against no learned part, the mean row, other ``k`` and a linear map of the titles
    (``python -m experiments new_items``).

    Args:
        rows: Learned rows of known items.
        titles: Their title embeddings.
        new: Title embeddings of the new items.
        neighbors: ``k``, number of nearest titles; all if there are fewer.
        of_mean: ``m``, share of the mean row that stays.

    Shapes:
        - rows: ``(n, ...)``; titles: ``(n, d_t)``; new: ``(m, d_t)``; output: ``(m, ...)``

    >>> rows, titles = torch.tensor([[4.0], [0.0]]), torch.eye(2)
    >>> cold_rows(rows, titles, titles[:1]).tolist()  # 4 less half of the mean
    [[3.0]]
    """
    known, made = normalize(titles, dim=-1), [rows[:0]]
    for part in torch.split(normalize(new, dim=-1).to(known), _AT_ONCE):
        cosine, nearest = (part @ known.T).topk(min(neighbors, len(known)))  # (m', k)
        weight = cosine.clamp_min(1e-9)
        weight = (weight / weight.sum(1, keepdim=True)).to(rows)
        made.append(torch.einsum("mk,mk...->m...", weight, rows[nearest]))
    return torch.cat(made) - (1 - of_mean) * rows.mean(0)
