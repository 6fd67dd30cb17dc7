"""Reduce title embeddings to the principal axes of the catalogue, after centring."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.errors import InputError


class TitleAxes(NamedTuple):
    """The catalogue's titles, projected onto their first ``p`` principal axes."""

    mean: Tensor  # (d_t,) mean of the known titles
    basis: Tensor  # (d_t, p) the axes, columns of length 1
    titles: Tensor  # (V, p) normalised; 0 where an item has no title


@torch.no_grad()
def title_axes(titles: Tensor, mask: Tensor, axes: int) -> TitleAxes:
    r"""Centre the titles and project them onto their principal axes.

    .. math:: t_v = \frac{P^T (e_v - \mu)}{\| P^T (e_v - \mu) \|}

    The largest component of an axis is positive, so its sign is the same on every machine.

    Args:
        titles: Title embeddings.
        mask: True for items that have a title.
        axes: ``p``, number of principal axes.

    Shapes:
        - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

    Raises:
        InputError: If `axes` is below 1 or above the dimension of the embeddings.
    """
    size = titles.size(1)
    if not 1 <= axes <= size:
        raise InputError(f"titles of {size} dimensions have between 1 and {size} axes", value=axes)
    known = titles[mask].double()  # (V', d_t)
    mean = known.mean(0) if len(known) else known.new_zeros(size)
    centred = known - mean
    _, every = torch.linalg.eigh(centred.T @ centred)  # (d_t, d_t), eigenvalues ascend
    basis = every.flip(1)[:, :axes]  # (d_t, p)
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))  # (1, p): eigh does not fix the sign
    basis = basis * largest.sign()
    reduced = titles.new_zeros(len(titles), axes)
    reduced[mask] = normalize(centred @ basis, dim=-1).to(reduced)
    return TitleAxes(mean.to(titles), basis.to(titles), reduced)
