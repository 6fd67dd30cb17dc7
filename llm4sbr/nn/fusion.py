"""Fusion of interests and views into one session vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The backbone's read-out, (B, d). Keyword arguments (B, d) replace its own interests by name.
Merge = Callable[..., Tensor]


class Fused(NamedTuple):
    """Output of a fusion."""

    session: Tensor  # (B, d)
    gates: Tensor | None  # (B, K); None for a fusion without gates


class GateFusion(nn.Module):
    r"""Gates from both modalities weigh the interests (Eq. 10-12, arXiv:2402.13840). The default.

    .. math:: \alpha_k = Q_k^T \sigma(h_k + z_k), \quad h = W [\alpha_1 h_1 ; \dots ; \alpha_K h_K]

    The gates are not squashed. An unknown view is ``z_k = 0``, so its gate depends on behaviour alone. Gates
    start near one, so that training begins from a plain linear read-out of the interests.

    Args:
        dim: ``d``.
        interest_of_view: For each view the interest it reads, ``"long_term"`` or ``"short_term"``.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, gates ``(B, K)``
    """

    def __init__(self, dim: int, interest_of_view: tuple[str, ...]) -> None:
        super().__init__()
        num_views = len(interest_of_view)
        self.gate = nn.Parameter(torch.full((num_views, dim), 2.0 / dim))  # sigmoid(0) = 1/2: d/2 * 2/d = 1
        self.readout = nn.Linear(num_views * dim, dim, bias=False)

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Weight the interest of each view by its gate and read out the result."""
        z = z * mask.unsqueeze(-1)
        gates = torch.einsum("bkd,kd->bk", torch.sigmoid(h + z), self.gate)
        return Fused(self.readout((gates.unsqueeze(-1) * h).flatten(1)), gates)


class AverageFusion(nn.Module):
    r"""The paper's first version (arXiv:2402.13840v1): each interest averaged with its view, then merged.

    .. math:: h_k' = (h_k + z_k) / 2

    The backbone's own read-out merges the averages, so if every view is unknown the wrapped model returns
    exactly the scores of the bare backbone.

    Args:
        dim: ``d``.
        interest_of_view: For each view the interest it reads, ``"long_term"`` or ``"short_term"``.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, no gates
    """

    def __init__(self, dim: int, interest_of_view: tuple[str, ...]) -> None:
        super().__init__()
        self.interest_of_view = interest_of_view

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Average each interest with its known views and merge as the backbone does."""
        known = mask.unsqueeze(-1).to(h.dtype)  # (B, K, 1)

        def averaged(interest: str) -> Tensor:
            views = [k for k, name in enumerate(self.interest_of_view) if name == interest]
            total = h[:, views[0]] + (z[:, views] * known[:, views]).sum(1)  # (B, d)
            return total / (1 + known[:, views].sum(1))

        return Fused(merge(**{interest: averaged(interest) for interest in set(self.interest_of_view)}), None)


class ConcatFusion(nn.Module):
    r"""One linear read-out of the concatenated interests and views (ours).

    .. math:: h = W [h_1 ; \dots ; h_K ; z_1 ; \dots ; z_K]

    A gate only scales an interest; here a view also changes the direction of the session vector. An unknown
    view is 0.

    Args:
        dim: ``d``.
        interest_of_view: For each view the interest it reads, ``"long_term"`` or ``"short_term"``.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, no gates
    """

    def __init__(self, dim: int, interest_of_view: tuple[str, ...]) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * len(interest_of_view) * dim, dim, bias=False)

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Read out interests and known views together."""
        known = z * mask.unsqueeze(-1)  # (B, K, d)
        return Fused(self.readout(torch.cat((h, known), dim=1).flatten(1)), None)


class ResidualFusion(nn.Module):
    r"""The backbone's own read-out plus each view, weighted by one gate per dimension (ours).

    .. math:: h = \mathrm{merge}(h_l, h_g) + \sum_k \sigma(A_k [h_k ; z_k] + b_k) \odot z_k

    The views are the only addition: if every view is unknown, the wrapped model returns the scores of the
    bare backbone, and the backbone's read-out trains as without the wrapper. Gates start nearly closed
    (``b = -2``).

    Args:
        dim: ``d``.
        interest_of_view: For each view the interest it reads, ``"long_term"`` or ``"short_term"``.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, gates ``(B, K)``: means over the dimensions
    """

    def __init__(self, dim: int, interest_of_view: tuple[str, ...]) -> None:
        super().__init__()
        gates = [nn.Linear(2 * dim, dim) for _ in interest_of_view]
        for gate in gates:
            nn.init.constant_(gate.bias, -2.0)
        self.gates = nn.ModuleList(gates)

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Merge as the backbone does, then add the known views."""
        both = torch.cat((h, z), dim=-1)  # (B, K, 2d)
        opened = [torch.sigmoid(gate(both[:, k])) for k, gate in enumerate(self.gates)]
        gates = torch.stack(opened, dim=1) * mask.unsqueeze(-1)  # (B, K, d)
        return Fused(merge() + (gates * z).sum(1), gates.mean(-1))


FUSIONS: dict[str, type[GateFusion | AverageFusion | ConcatFusion | ResidualFusion]] = {
    "gate": GateFusion,
    "average": AverageFusion,
    "concat": ConcatFusion,
    "residual": ResidualFusion,
}
