"""Learned rows of items without clicks, from their titles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBORS = 5
_AT_ONCE = 1024  # new items in a product with all titles: bounds its memory


@torch.no_grad()
def cold_rows(
    rows: Tensor, titles: Tensor, new: Tensor, neighbors: int = NEIGHBORS, of_mean: float = 1.0
) -> Tensor:
    r"""Rows of new items in a learned table: means of the rows of the items with the nearest titles (ours).

    .. math:: E_{new} = \sum_{j \in top-k} w_j E_j - (1 - m) \bar E, \quad
        w_j = \frac{\max(\cos(t_{new}, t_j), 0)}{\sum_i \max(\cos(t_{new}, t_i), 0)}

    The mean row :math:`\bar E` holds what all items share: with it training lowers the scores of items that
    are seldom the target. A smaller ``m`` therefore brings new items forward, at the cost of the others.
    ``k`` and ``m`` were chosen on validation sessions of MovieLens 100K and Beauty with held-out items, for
    SR-GNN with `ItemTitles` under cosines (``python -m experiments new_items``; docs/serving.md has the
    table): these lose least of the others' Recall among the choices that recommend new items at all. No
    learned part, an untrained row or ``m = 0`` recommend new items more, and take 5 to 10 % from the others;
    the mean row alone and a linear map of the titles hardly recommend them.

    Args:
        rows: Learned rows of known items.
        titles: Their title embeddings.
        new: Title embeddings of the new items.
        neighbors: ``k``, number of nearest titles; all if there are fewer.
        of_mean: ``m``, share of the mean row that stays.

    Shapes:
        - rows: ``(n, ...)``; titles: ``(n, d_t)``; new: ``(m, d_t)``; output: ``(m, ...)``

    >>> rows, titles = torch.tensor([[4.0], [0.0]]), torch.eye(2)
    >>> [cold_rows(rows, titles, titles[:1], of_mean=m).item() for m in (1.0, 0.5)]
    [4.0, 3.0]
    """
    known, made = normalize(titles, dim=-1), [rows[:0]]
    for part in torch.split(normalize(new, dim=-1).to(known), _AT_ONCE):
        cosine, nearest = (part @ known.T).topk(min(neighbors, len(known)))  # (m', k)
        weight = cosine.clamp_min(1e-9)
        weight = (weight / weight.sum(1, keepdim=True)).to(rows)
        made.append(torch.einsum("mk,mk...->m...", weight, rows[nearest]))
    found = torch.cat(made)
    return found if of_mean == 1 else found - (1 - of_mean) * rows.mean(0)
