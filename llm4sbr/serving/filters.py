"""Filters of a request: which items may be recommended, by lists of ids and by a mask."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError


def allowed_items(
    catalogue: Catalogue,
    only: Collection[str] | None,
    without: Collection[str] | None,
    mask: Any,
    count: int,
) -> Tensor | None:
    """The filters as one mask; None without filters.

    Args:
        catalogue: Items of the model.
        only: Ids of the only items to recommend.
        without: Ids of items to leave out.
        mask: True for each item that may be recommended, for all sessions or for each.
        count: ``B``, number of sessions.

    Shapes:
        - mask, output: ``(V,)`` or ``(B, V)`` bool

    Raises:
        InputError: If a list is a string, the lists exclude the whole catalogue, or the mask has another
            shape.

    Warns:
        UserWarning: If a list names items that the catalogue lacks.
    """
    allowed = None
    if only is not None or without is not None:
        allowed = torch.ones(catalogue.num_items, dtype=torch.bool)
        if only is not None:
            allowed = _listed(catalogue, only, "only")
        if without is not None:
            allowed = allowed & ~_listed(catalogue, without, "without")
        if not allowed.any():
            raise InputError("no item is left to recommend: the lists exclude the whole catalogue")
    if mask is not None:
        given = mask if isinstance(mask, Tensor) else torch.from_numpy(np.asarray(mask))
        shapes = (catalogue.num_items,), (count, catalogue.num_items)
        if given.dtype != torch.bool or tuple(given.shape) not in shapes:
            raise InputError(
                f"a mask is {shapes[0]} or {shapes[1]} of bool",
                value=f"{tuple(given.shape)} of {given.dtype}",
            )
        allowed = given.cpu() if allowed is None else allowed & given.cpu()
    return allowed


def _listed(catalogue: Catalogue, ids: Collection[str], option: str) -> Tensor:
    """True for each listed item, ``(V,)``."""
    if isinstance(ids, str):
        raise InputError(f"{option} is a list of item ids", value=ids)
    index = catalogue.index
    listed = torch.zeros(catalogue.num_items, dtype=torch.bool)
    listed[[index[item] - 1 for item in ids if item in index]] = True
    unknown = [item for item in ids if item not in index]
    if unknown:
        warnings.warn(
            f"{option}: {len(unknown)} of {len(ids)} items are not in the catalogue, such as {unknown[0]!r}",
            UserWarning,
            stacklevel=4,
        )
    return listed
