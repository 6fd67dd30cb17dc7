"""Alignment and uniformity of behaviour and text (Eq. 8 and 9, arXiv:2402.13840)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.rebuildable import Rebuildable
from llm4sbr.nn.functional import log_mean_potential, unit_rows


class Alignment(Rebuildable, nn.Module):
    r"""Alignment and uniformity of interests and views, and their weight (Eq. 8, 9 and 15, arXiv:2402.13840).

    .. math:: \tau (L_a + L_u)

    Args:
        tau: Weight of both, the paper's τ; at least 0.
        align: False leaves out alignment (Eq. 8), an ablation.
        uniform: False leaves out uniformity (Eq. 9), an ablation.
        global_batch: Where several processes train, align and spread over the sessions of all of them,
            gathered with gradients, as one process with one large batch does; False for each process apart.

    Shapes:
        - z, h: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: two scalars
    """

    def __init__(
        self, tau: float = 0.1, *, align: bool = True, uniform: bool = True, global_batch: bool = True
    ) -> None:
        super().__init__()
        if not (math.isfinite(tau) and tau >= 0):
            raise InputError("tau is a weight of at least 0", value=tau)
        self.tau, self.align, self.uniform, self.global_batch = tau, align, uniform, global_batch

    def forward(self, z: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Alignment and uniformity of projected views and interests, without weights."""
        return alignment_and_uniformity(z, h, mask)

    def weighted(self, alignment: Tensor, uniformity: Tensor) -> Tensor:
        """What both add to the loss (Eq. 15)."""
        return self.tau * (self.align * alignment + self.uniform * uniformity)


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
    everyone = x.new_ones(1, x.size(0), dtype=torch.bool)
    return log_mean_potential(unit_rows(x).unsqueeze(0), everyone).squeeze(0)


def alignment_and_uniformity(z: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses over the sessions whose view is known, averaged over the views (Eq. 8-9, arXiv:2402.13840).

    `alignment_loss` of each view, and the mean of `uniformity_loss` of its two sides, all at once: on a GPU a
    step is bound by how many operations it has, and by waiting for it to say how many views are known.

    Args:
        z: Projected views.
        h: Interests of the backbone.
        mask: Which views are known.

    Shapes:
        - z, h: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: two scalars

    >>> z, h = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[[0.0, 3.0]], [[5.0, 0.0]]])
    >>> [loss.item() for loss in alignment_and_uniformity(z, h, torch.ones(2, 1, dtype=torch.bool))]
    [2.0, -4.0]
    """
    known = mask.T  # (K, B)
    unit = unit_rows(torch.stack((z, h)).transpose(1, 2))  # (2, K, B, d)
    distance = (unit[0] - unit[1]).square().sum(-1)  # (K, B)
    alignment = (distance * known).sum(1) / known.sum(1).clamp(min=1)
    uniformity = log_mean_potential(unit.flatten(0, 1), known.repeat(2, 1))  # (2K,)
    return alignment.mean(), uniformity.mean()
