"""Reduce title embeddings to the principal axes of the catalogue, after centring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.catalogue_change import CatalogueChange
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
    return TitleAxes(mean.to(titles), basis.to(titles), along_axes(titles, mask, mean, basis))


def along_axes(titles: Tensor, mask: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Project titles onto given axes, ``(V, p)``; 0 where an item has no title.

    Shapes:
        - titles: ``(V, d_t)``; mask: ``(V,)`` bool; mean: ``(d_t,)``; basis: ``(d_t, p)``
    """
    reduced = titles.new_zeros(len(titles), basis.size(1))
    reduced[mask] = normalize((titles[mask].to(basis) - mean) @ basis, dim=-1).to(reduced)
    return reduced


def carried_titles(before: Mapping[str, Tensor], change: CatalogueChange, padding: int) -> dict[str, Tensor]:
    """Convert the titles of a checkpoint to another catalogue, along the checkpoint's axes.

    The axes stay, because weights were trained for them. Kept titles are copied; new and corrected ones are
    projected if their embeddings are known, else new ones are 0 and corrected ones as they were.

    Args:
        before: ``titles``, ``mean`` and ``basis`` in the checkpoint.
        change: How the catalogues differ.
        padding: Number of rows of ``titles`` before item 1.
    """
    old, mean, basis = (before[name] for name in ("titles", "mean", "basis"))
    fresh = old.new_zeros(padding + change.num_items, old.size(1))
    titles = change.rows(old, fresh, padding)
    if change.titles is not None and change.titled is not None:
        other = (change.source == 0) | change.retitled
        found = along_axes(change.titles[other].cpu(), change.titled[other].cpu(), mean.cpu(), basis.cpu())
        titles[padding:][other] = found.to(titles)
    return {"titles": titles, "mean": mean, "basis": basis}
