"""One check for numbers that are NaN or infinite; the error names what holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llm4sbr.contracts.errors import InputError


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; True for whole numbers and for an empty tensor.

    >>> is_finite(torch.tensor([1.0, float("nan")])), is_finite(torch.tensor([], dtype=torch.float16))
    (False, True)
    """
    return not values.is_floating_point() or bool(torch.isfinite(values).all())


def is_rankable(scores: Tensor) -> bool:
    """Whether every row of scores has a finite best score and no NaN; an item may be masked by -inf.

    Shapes:
        - scores: ``(B, V)``

    >>> masked = torch.tensor([[1.0, -torch.inf]])
    >>> is_rankable(masked), is_rankable(masked * 0)
    (True, False)
    """
    return scores.numel() == 0 or bool(torch.isfinite(scores.amax(-1)).all())  # amax passes NaN on


def require_finite(
    values: Tensor,
    what: str,
    *,
    path: str | Path | None = None,
    row: int | str | None = None,
    hint: str | None = None,
) -> None:
    """Refuse values that are NaN or infinite.

    Args:
        values: Values of any shape.
        what: What the values are, for the message: "the title embeddings".
        path: File that holds them.
        row: Row or session that holds them.
        hint: Remedy.

    Raises:
        InputError: If a value is NaN or infinite; the message has the number of such values.
    """
    if is_finite(values):
        return
    bad = ~torch.isfinite(values)
    first = values[bad].flatten()[0].item()
    raise InputError(
        f"{int(bad.sum())} of {values.numel()} numbers of {what} are not finite",
        path=path,
        row=row,
        value=first,
        hint=hint,
    )


def require_finite_state(
    state: Mapping[str, Tensor], *, finite: frozenset[str] = frozenset(), path: str | Path | None = None
) -> None:
    """Refuse a model's state that holds NaN.

    Infinity is allowed outside `finite`, because a buffer may be a mask of -inf.

    Args:
        state: Tensors by name.
        finite: Names of the tensors that may not hold infinity either: the trained weights.
        path: Checkpoint that holds the state.

    Raises:
        InputError: If a tensor holds NaN, or a tensor in `finite` an infinite number; the message names it.
    """
    hint = "The training that wrote it diverged: use an earlier checkpoint, or train with a lower rate"
    for name, tensor in state.items():
        if hasattr(tensor, "to_local"):  # a sharded tensor: no process has all of it
            continue
        if name in finite:
            require_finite(tensor, f"the weight {name}", path=path, hint=hint)
        elif tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise InputError(f"the tensor {name} holds NaN", path=path, hint=hint)
