"""Alignment and uniformity of behaviour and text (Eq. 8 and 9, arXiv:2402.13840)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4sbr.contracts.ranges import NonNegativeFloat
from llm4sbr.contracts.rebuildable import Rebuildable
from llm4sbr.nn.functional import log_mean_potential, unit_rows


class Alignment(Rebuildable, nn.Module):
    r"""Weighted alignment and uniformity of interests and views (Eq. 8, 9 and 15, arXiv:2402.13840).

    .. math:: \tau (L_a + L_u)

    Both losses are means over the views. The authors' code sums them, so its τ = 0.1 is 0.2 here for two
    views (`experiments/recipes/paper.yaml`).

    Args:
        tau: Weight of both losses, the paper's τ; at least 0.
        align: Whether the loss includes alignment (Eq. 8); False is an ablation.
        uniform: Whether the loss includes uniformity (Eq. 9); False is an ablation.
        global_batch: Whether several processes compute the losses over the sessions of all processes,
            gathered with gradients, as one process with one large batch does. If False, each process uses
            its own sessions.

    Shapes:
        - z, h: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: two scalars
    """

    def __init__(
        self,
        tau: NonNegativeFloat = 0.1,
        *,
        align: bool = True,
        uniform: bool = True,
        global_batch: bool = True,
    ) -> None:
        super().__init__()
        self.tau, self.align, self.uniform, self.global_batch = tau, align, uniform, global_batch

    def forward(self, z: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Alignment and uniformity of projected views and interests, without weights."""
        return alignment_and_uniformity(z, h, mask)

    def weighted(self, alignment: Tensor, uniformity: Tensor) -> Tensor:
        """Weighted sum that is added to the loss (Eq. 15)."""
        return self.tau * (self.align * alignment + self.uniform * uniformity)


def alignment_loss(z: Tensor, h: Tensor) -> Tensor:
    r"""Mean squared distance between view and interest of the same session (Eq. 8, arXiv:2402.13840).

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
        return z.sum() + h.sum()  # 0, but still part of the graph
    return (F.normalize(z, dim=-1) - F.normalize(h, dim=-1)).square().sum(-1).mean()


def uniformity_loss(x: Tensor) -> Tensor:
    r"""Uniformity of vectors on the sphere (Eq. 9, arXiv:2402.13840; Wang and Isola, arXiv:2005.10242).

    .. math:: L_u = \log \frac{1}{|P|} \sum_{(a,b) \in P} \exp(-2 \| \hat x_a - \hat x_b \|^2)

    over all distinct pairs ``P`` of the batch. The worst value is 0: all vectors are equal. Fewer than two
    vectors have no pair and give 0.

    Args:
        x: Vectors, not necessarily normalised.

    Shapes:
        - x: ``(B, d)``
        - output: scalar

    >>> uniformity_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item()
    -4.0
    """
    every_row = x.new_ones(1, x.size(0), dtype=torch.bool)
    return log_mean_potential(unit_rows(x).unsqueeze(0), every_row).squeeze(0)


def alignment_and_uniformity(z: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses over the sessions whose view is known, averaged over the views (Eq. 8-9, arXiv:2402.13840).

    It computes `alignment_loss` of each view, and the mean of `uniformity_loss` over views and interests, in
    one batch of operations. On a GPU the number of operations bounds a step, and so does the synchronisation
    that reading the number of known views needs.

    Args:
        z: Projected views.
        h: Interests of the backbone.
        mask: True for known views.

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
