"""Titles along the principal axes of the catalogue: short vectors without what all titles of a shop share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.errors import InputError


class TitleAxes(NamedTuple):
    """The catalogue's titles along their first ``p`` principal axes."""

    mean: Tensor  # (d_t,) of the titles that are known
    basis: Tensor  # (d_t, p) the axes, columns of length 1
    titles: Tensor  # (V, p) normalised; 0 where an item has no title


@torch.no_grad()
def title_axes(titles: Tensor, mask: Tensor, axes: int) -> TitleAxes:
    r"""Centre the titles and turn them to their principal axes.

    .. math:: t_v = \frac{P^T (e_v - \mu)}{\| P^T (e_v - \mu) \|}

    An axis points where its largest part is positive, so two machines agree on its sign.

    Args:
        titles: Title embeddings.
        mask: Which items have a title.
        axes: ``p``.

    Shapes:
        - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

    Raises:
        InputError: More axes than the embeddings have dimensions, or none.
    """
    size = titles.size(1)
    if not 1 <= axes <= size:
        raise InputError(f"titles of {size} dimensions have between 1 and {size} axes", value=axes)
    known = titles[mask].double()  # (V', d_t)
    mean = known.mean(0) if len(known) else known.new_zeros(size)
    centred = known - mean
    _, every = torch.linalg.eigh(centred.T @ centred)  # (d_t, d_t), eigenvalues rise
    basis = every.flip(1)[:, :axes]  # (d_t, p)
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))  # (1, p): eigh leaves the sign open
    basis = basis * largest.sign()
    reduced = titles.new_zeros(len(titles), axes)
    reduced[mask] = normalize(centred @ basis, dim=-1).to(reduced)
    return TitleAxes(mean.to(titles), basis.to(titles), reduced)
