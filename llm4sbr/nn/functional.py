"""Memory-efficient operations with hand-written gradients, for cases where autograd makes many more passes.

On a CPU a training step is bound by passes over ``(V, d)`` and ``(B, V)``: with the first two operations a
step of a small backbone takes about four fifths of its time (``experiments/benchmarks/catalogue_ops.py``).
On a GPU a step of a small model is bound by the number of operations. All are differentiable once.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_LARGE = 1 << 14  # columns; below, fewer passes save nothing, and would change the last bits of kept numbers
_SMALLEST = 1e-12  # smallest divisor, as in torch.nn.functional.normalize


def unit_rows(x: Tensor) -> Tensor:
    """Normalise rows to length 1; a row of zeros stays zero.

    It equals `torch.nn.functional.normalize` over the last dimension, with a gradient in three passes.

    Shapes:
        - x: ``(..., d)``, output: the same

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return cast(Tensor, _UnitRows.apply(x))  # type: ignore[no-untyped-call]


def smoothed_cross_entropy(scores: Tensor, column: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with one target column per row, averaged over rows.

    It equals `torch.nn.functional.cross_entropy` with ``label_smoothing``, in closed form; only the
    probabilities are kept for the gradient.

    Shapes:
        - scores: ``(B, V)``, column: ``(B,)`` long, the target column of each row
        - output: scalar

    >>> round(smoothed_cross_entropy(torch.zeros(1, 4), torch.tensor([3])).item(), 4)  # log 4
    1.3863
    """
    return cast(Tensor, _CrossEntropy.apply(scores, column, label_smoothing))  # type: ignore[no-untyped-call]


def set_share(scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor) -> Tensor:
    """Shift the scores of some columns per row so that their total softmax probability has given log-odds.

    The order among these columns and the order among all other columns do not change. Only the other
    columns' probabilities are kept for the gradient.

    Args:
        scores: Rows of scores.
        columns: Columns to shift in each row; duplicates are allowed if only one of them is counted.
        counted: True for the columns to shift. Each column is counted at most once per row, and every
            uncounted entry repeats a counted one.
        log_odds: Log-odds of the total probability of the shifted columns. A row in which all columns are
            counted is not changed.

    Shapes:
        - scores: ``(B, V)`` float32, columns: ``(B, L)`` long, counted: ``(B, L)`` bool, log_odds: ``(B, 1)``
        - output: ``(B, V)``

    >>> one = torch.tensor([[0]]), torch.tensor([[True]]), torch.tensor([[0.0]])  # a half
    >>> set_share(torch.tensor([[9.0, 1.0, 1.0]]), *one).softmax(1)
    tensor([[0.5000, 0.2500, 0.2500]])
    """
    if not torch.is_grad_enabled() and scores.size(1) > _LARGE:
        return _with_share(scores, columns, counted, log_odds)
    return cast(Tensor, _SetShare.apply(scores, columns, counted, log_odds))  # type: ignore[no-untyped-call]


def log_mean_potential(unit: Tensor, counted: Tensor) -> Tensor:
    r"""Log of the mean of :math:`\exp(-2 \|a - b\|^2)` over the pairs of each set of unit vectors.

    This is the Gaussian potential of uniformity (Wang and Isola, arXiv:2005.10242). On the sphere
    :math:`\|a - b\|^2 = 2 - 2ab`: one matrix product is enough, no square root with an undefined gradient at
    0 occurs, and exponents lie between -8 and 0. One ``(B, B)`` matrix per set is kept for the gradient.

    Args:
        unit: Sets of vectors of length 1 or 0.
        counted: True for the vectors that belong to the set.

    Shapes:
        - unit: ``(N, B, d)``, counted: ``(N, B)`` bool
        - output: ``(N,)``; 0 for a set of fewer than two vectors

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
        along = torch.linalg.vecdot(gradient, unit).unsqueeze(-1)  # (..., 1): part that changes the length
        return torch.addcmul(gradient, unit, along, value=-1).div_(length)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, column: Tensor, label_smoothing: float) -> Tensor:
        where = column.unsqueeze(1)  # (B, 1)
        probability = scores.softmax(dim=1)  # (B, V)
        # The log of the sum follows from the best column, whose probability is at least 1 / V.
        # Two maxima are faster than one with its column.
        log_sum = scores.amax(dim=1, keepdim=True) - probability.amax(dim=1, keepdim=True).log()  # (B, 1)
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


def _with_share(scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor) -> Tensor:
    """`set_share` without a gradient: half of its passes over ``(B, V)``."""
    lowest = torch.finfo(scores.dtype).min
    own = scores.gather(1, columns)  # (B, L)
    others = scores.scatter(1, columns, lowest)  # (B, V)
    log_sum = others.logsumexp(dim=1, keepdim=True) - own.masked_fill(~counted, lowest).logsumexp(1, True)
    divided = counted.sum(dim=1, keepdim=True) < scores.size(1)  # (B, 1): the row has other columns
    step = (log_odds + log_sum).where(divided, torch.zeros_like(log_sum))
    return others.scatter_(1, columns, own + step)  # entries that are not counted repeat counted ones


class _SetShare(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor) -> Tensor:
        lowest = torch.finfo(scores.dtype).min
        own_scores = scores.gather(1, columns).masked_fill(~counted, lowest)  # (B, L)
        own = own_scores.softmax(dim=1)
        others = scores.scatter(1, columns, lowest)  # (B, V)
        probability = others.softmax(dim=1)
        log_sum = others.amax(dim=1, keepdim=True) - probability.amax(dim=1, keepdim=True).log()  # (B, 1)
        divided = counted.sum(dim=1, keepdim=True) < scores.size(1)  # (B, 1): the row has other columns
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
            potential.diagonal(dim1=1, dim2=2).fill_(0)  # no vector pairs with itself
            total = (weight * (potential @ weight)).sum((1, 2))  # (N,), each pair counted twice
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
        scale = (8 * gradient * paired / total).view(-1, 1, 1) * weight  # (N, B, 1): a pair has two members
        return (scale * (potential @ (weight * unit))).to(ctx.dtype), None
