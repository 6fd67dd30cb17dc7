"""Operations over the whole catalogue that autograd takes through memory many more times than they need.

On a CPU a training step is bound by passes over ``(V, d)`` and ``(B, V)``: with these two a step of a small
backbone takes about four fifths of its time (``experiments/benchmarks/catalogue_ops.py``). Both are
differentiable once.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_SMALLEST = 1e-12  # of a length that is divided by, as in torch.nn.functional.normalize


def unit_rows(x: Tensor) -> Tensor:
    """Rows brought to length 1; a row of zeros stays.

    `torch.nn.functional.normalize` over the last dimension, with a gradient in three passes.

    Shapes:
        - x: ``(..., d)``, output: the same

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return cast(Tensor, _UnitRows.apply(x))  # type: ignore[no-untyped-call]


def smoothed_cross_entropy(scores: Tensor, column: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of one column a row, averaged over rows.

    `torch.nn.functional.cross_entropy` with its ``label_smoothing``, in closed form: of the scores only the
    probabilities are kept for the gradient.

    Shapes:
        - scores: ``(B, V)``, column: ``(B,)`` long, the right one of each row
        - output: scalar

    >>> round(smoothed_cross_entropy(torch.zeros(1, 4), torch.tensor([3])).item(), 4)  # log 4
    1.3863
    """
    return cast(Tensor, _CrossEntropy.apply(scores, column, label_smoothing))  # type: ignore[no-untyped-call]


class _UnitRows(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(_SMALLEST)  # (..., 1)
        unit: Tensor = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, unit).unsqueeze(-1)  # (..., 1): no change of length
        return torch.addcmul(gradient, unit, along, value=-1).div_(length)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, column: Tensor, label_smoothing: float) -> Tensor:
        where = column.unsqueeze(1)  # (B, 1)
        probability = scores.softmax(dim=1)  # (B, V)
        # The log of the sum through the best column, whose probability is at least 1 / V.
        best, best_column = scores.max(dim=1, keepdim=True)  # (B, 1)
        log_sum = best - probability.gather(1, best_column).log()
        loss = log_sum - (1 - label_smoothing) * scores.gather(1, where)
        if label_smoothing:
            loss = loss - label_smoothing * scores.mean(dim=1, keepdim=True)
        ctx.save_for_backward(probability, where)
        ctx.label_smoothing = label_smoothing
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        probability, where = ctx.saved_tensors
        rows, columns = probability.shape
        weight = gradient / rows
        found = probability * weight  # (B, V)
        if ctx.label_smoothing:
            found.sub_(weight * (ctx.label_smoothing / columns))
        target = (weight * (ctx.label_smoothing - 1)).expand(rows, 1)
        return found.scatter_add_(1, where, target.to(found.dtype)), None, None
