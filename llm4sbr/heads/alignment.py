"""Alignment and uniformity of behaviour and text (Eq. 8 and 9, arXiv:2402.13840)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment_loss(z: Tensor, h: Tensor) -> Tensor:
    r"""Mean squared distance of a view and the interest of the same session (Eq. 8, arXiv:2402.13840).

    .. math:: L_a = \frac{1}{B} \sum_b \| \hat z_b - \hat h_b \|^2, \quad \hat x = x / \|x\|

    Args:
        z: Projected view.
        h: Interest of the backbone.

    Shapes:
        - z, h: ``(B, d)``; ``B = 0`` gives 0
        - output: scalar

    >>> alignment_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()
    2.0
    """
    if z.size(0) == 0:
        return z.sum() + h.sum()  # 0, and still part of the graph
    return (F.normalize(z, dim=-1) - F.normalize(h, dim=-1)).square().sum(-1).mean()


def uniformity_loss(x: Tensor) -> Tensor:
    r"""How evenly vectors spread over the sphere (Eq. 9, arXiv:2402.13840; Wang and Isola, arXiv:2005.10242).

    .. math:: L_u = \log \frac{1}{|P|} \sum_{(a,b) \in P} \exp(-2 \| \hat x_a - \hat x_b \|^2)

    over all distinct pairs ``P`` of the batch. 0 is the worst: all vectors the same. Fewer than two vectors
    have no pair and give 0.

    Args:
        x: Vectors; normalised here.

    Shapes:
        - x: ``(B, d)``
        - output: scalar

    >>> uniformity_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item()
    -4.0
    """
    count = x.size(0)
    if count < 2:
        return x.sum() * 0
    unit = F.normalize(x, dim=-1)
    # On the sphere ||a - b||^2 = 2 - 2ab: one matrix product, and no square root whose gradient fails at 0.
    exponent = 4 * (unit @ unit.T) - 4  # (B, B)
    diagonal = torch.eye(count, dtype=torch.bool, device=x.device)
    exponent = exponent.masked_fill(diagonal, -torch.inf)
    return exponent.flatten().logsumexp(0) - math.log(count * (count - 1))
