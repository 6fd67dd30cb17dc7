"""Operations that autograd takes through memory many more times than they need.

On a CPU a training step is bound by passes over ``(V, d)`` and ``(B, V)``: with the first two a step of a
small backbone takes about four fifths of its time (``experiments/benchmarks/catalogue_ops.py``). On a GPU a
step of a small model is bound by how many operations it has. All are differentiable once.
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


def set_share(scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor) -> Tensor:
    """Scores whose softmax gives some columns of each row a share of their own; both orders stay.

    Of the scores only the other columns' probabilities are kept for the gradient.

    Args:
        scores: Rows of scores.
        columns: The columns of each row; one may be named again where it is not counted.
        counted: Which of them count; each column once, and every uncounted one is named as counted, too.
        log_odds: Of their share. A row that names every column stays as it is.

    Shapes:
        - scores: ``(B, V)`` float32, columns: ``(B, L)`` long, counted: ``(B, L)`` bool, log_odds: ``(B, 1)``
        - output: ``(B, V)``

    >>> one = torch.tensor([[0]]), torch.tensor([[True]]), torch.tensor([[0.0]])  # a half
    >>> set_share(torch.tensor([[9.0, 1.0, 1.0]]), *one).softmax(1)
    tensor([[0.5000, 0.2500, 0.2500]])
    """
    return cast(Tensor, _SetShare.apply(scores, columns, counted, log_odds))  # type: ignore[no-untyped-call]


def log_mean_potential(unit: Tensor, counted: Tensor) -> Tensor:
    r"""Log of the mean of :math:`\exp(-2 \|a - b\|^2)` over the pairs of each set of unit vectors.

    The Gaussian potential of uniformity (Wang and Isola, arXiv:2005.10242). On the sphere
    :math:`\|a - b\|^2 = 2 - 2ab`, so it is one matrix product, no square root whose gradient fails at 0, and
    exponents between -8 and 0. Of each set one ``(B, B)`` is kept for the gradient.

    Args:
        unit: Sets of vectors of length 1, or 0.
        counted: Which of them count.

    Shapes:
        - unit: ``(N, B, d)``, counted: ``(N, B)`` bool
        - output: ``(N,)``; 0 where fewer than two count

    >>> log_mean_potential(torch.eye(2).unsqueeze(0), torch.ones(1, 2, dtype=torch.bool)).item()
    -4.0
    """
    return cast(Tensor, _LogMeanPotential.apply(unit, counted))  # type: ignore[no-untyped-call]


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


class _SetShare(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor) -> Tensor:
        lowest = torch.finfo(scores.dtype).min
        own_scores = scores.gather(1, columns).masked_fill(~counted, lowest)  # (B, L)
        own = own_scores.softmax(dim=1)
        others = scores.scatter(1, columns, lowest)  # (B, V)
        best, best_column = others.max(dim=1, keepdim=True)  # (B, 1)
        probability = others.softmax(dim=1)
        log_sum = best - probability.gather(1, best_column).log()
        divided = counted.sum(dim=1, keepdim=True) < scores.size(1)  # (B, 1): there are others
        step = log_odds + log_sum - own_scores.logsumexp(dim=1, keepdim=True)
        step = step.where(divided, torch.zeros_like(step))
        ctx.save_for_backward(columns, counted, divided, own, probability)
        return scores.scatter_add(1, columns, step * counted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, Tensor]:
        columns, counted, divided, own, probability = ctx.saved_tensors
        of_step = (gradient.gather(1, columns) * counted).sum(dim=1, keepdim=True) * divided  # (B, 1)
        of_scores = torch.addcmul(gradient, of_step, probability)  # (B, V)
        return of_scores.scatter_add_(1, columns, -of_step * own), None, None, of_step


class _LogMeanPotential(Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor, counted: Tensor) -> Tensor:
        with torch.autocast(unit.device.type, enabled=False):
            exact = unit.float() if unit.dtype in (torch.float16, torch.bfloat16) else unit
            weight = counted.to(exact.dtype).unsqueeze(2)  # (N, B, 1)
            potential = torch.baddbmm(
                exact.new_full((1, 1, 1), -4), exact, exact.mT, alpha=4
            ).exp_()  # (N, B, B)
            potential.diagonal(dim1=1, dim2=2).fill_(0)  # nobody's pair with itself
            total = (weight * (potential @ weight)).sum((1, 2))  # (N,), each pair twice
            count = counted.sum(1)
            paired = count > 1
            total = total.where(paired, torch.ones_like(total))
            ctx.save_for_backward(exact, potential, weight, total, paired)
            ctx.dtype = unit.dtype
            return total.log() - (count * (count - 1)).clamp(min=1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        unit, potential, weight, total, paired = ctx.saved_tensors
        scale = (8 * gradient * paired / total).view(-1, 1, 1) * weight  # (N, B, 1): a pair has two ends
        return (scale * (potential @ (weight * unit))).to(ctx.dtype), None
