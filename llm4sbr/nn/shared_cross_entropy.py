"""Cross-entropy of `FullSoftmax` after `RepeatExplore`, in fewer passes over the scores than both take."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus


def shared_cross_entropy(
    scores: Tensor, columns: Tensor, counted: Tensor, log_odds: Tensor, target: Tensor, smoothing: float = 0.0
) -> Tensor:
    r"""Cross-entropy of scores whose columns ``C`` are shifted to a share with given log-odds.

    It equals `smoothed_cross_entropy` of `set_share`, averaged over rows. With ``O`` the other columns, ``p``
    the softmax within each of both sets, ``l`` the log-odds and
    :math:`\delta = l + \log \sum_O e^s - \log \sum_C e^s` the shift, the sum over all shifted scores is
    :math:`\sum_O e^s (1 + e^l)`, so one softmax is enough:

    .. math:: L = \log \sum_O e^s + \log(1 + e^l) - (1 - \epsilon) s_t - \frac{\epsilon}{V} \sum_v s_v
        - a \delta, \quad a = (1 - \epsilon) [t \in C] + \epsilon |C| / V

    .. math:: \frac{\partial L}{\partial s_v} = (1 - a) [v \in O] p_v + a [v \in C] p_v
        - (1 - \epsilon) [v = t] - \epsilon / V, \quad \frac{\partial L}{\partial l} = \sigma(l) - a

    Args:
        scores: Rows of scores.
        columns: Columns to shift, as for `llm4sbr.nn.functional.set_share`.
        counted: True for those to count.
        log_odds: Log-odds of their total probability.
        target: Target column of each row.
        smoothing: ``ε``, label smoothing.

    Shapes:
        - scores: ``(B, V)`` float32, columns: ``(B, L)`` long, counted: ``(B, L)`` bool
        - log_odds: ``(B, 1)``, target: ``(B,)`` long
        - output: scalar

    >>> one = torch.tensor([[0]]), torch.tensor([[True]]), torch.tensor([[0.0]])  # a half for the first
    >>> shared_cross_entropy(torch.tensor([[9.0, 1.0, 1.0]]), *one, torch.tensor([1])).exp()
    tensor(4.)
    """
    found = _SharedCrossEntropy.apply(scores, columns, counted, log_odds, target, smoothing)  # type: ignore[no-untyped-call]
    return cast(Tensor, found)


class _SharedCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        columns: Tensor,
        counted: Tensor,
        log_odds: Tensor,
        target: Tensor,
        smoothing: float,
    ) -> Tensor:
        size, lowest = scores.size(1), torch.finfo(scores.dtype).min
        where = target.unsqueeze(1)  # (B, 1)
        own_scores = scores.gather(1, columns).masked_fill(~counted, lowest)  # (B, L)
        own, own_sum = own_scores.softmax(dim=1), own_scores.logsumexp(dim=1, keepdim=True)
        others = scores.scatter(1, columns, lowest)  # (B, V)
        probability = others.softmax(dim=1)
        other_sum = others.amax(dim=1, keepdim=True) - probability.amax(dim=1, keepdim=True).log()  # (B, 1)
        number = counted.sum(dim=1, keepdim=True)
        divided = number < size  # (B, 1): the row has other columns
        target_inside = ((columns == where) & counted).any(dim=1, keepdim=True)
        shifted = (1 - smoothing) * target_inside.to(scores.dtype)
        shifted = (shifted + (smoothing / size) * number.to(scores.dtype)) * divided  # a
        total = torch.where(divided, other_sum + softplus(log_odds), own_sum)
        shift = torch.where(divided, log_odds + other_sum - own_sum, 0.0)
        loss = total - (1 - smoothing) * scores.gather(1, where) - shifted * shift
        if smoothing:
            loss = loss - smoothing * scores.mean(dim=1, keepdim=True)
        ctx.save_for_backward(probability, own, columns, counted, log_odds, where, divided, shifted)
        ctx.smoothing = smoothing
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, Tensor, None, None]:
        probability, own, columns, counted, log_odds, where, divided, shifted = ctx.saved_tensors
        rows, size = probability.shape
        weight = gradient / rows
        rest = (-weight * (ctx.smoothing / size)).expand(1, 1)
        of_scores = torch.addcmul(rest, probability, weight * (1 - shifted) * divided)  # (B, V)
        of_own = own * counted * torch.where(divided, shifted, 1.0) * weight  # (B, L)
        of_scores.scatter_add_(1, columns, of_own)
        target = (weight * (ctx.smoothing - 1)).expand(rows, 1)
        of_scores.scatter_add_(1, where, target.to(of_scores.dtype))
        of_odds = (log_odds.sigmoid() - shifted) * divided * weight
        return of_scores, None, None, of_odds, None, None
