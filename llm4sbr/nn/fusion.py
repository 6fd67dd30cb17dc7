"""Fusion of interests and views into one session vector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The backbone's read-out, (B, d). Keyword arguments (B, d) replace its own interests by name.
Merge = Callable[..., Tensor]


class Fused(NamedTuple):
    """Output of a fusion."""

    session: Tensor  # (B, d)
    gates: Tensor | None  # (B, K); None for a fusion without gates


def shares(parts: Tensor, session: Tensor, item: Tensor) -> Tensor:
    r"""Share of each view in the score of one item, 1 being the whole score.

    .. math:: \mathrm{share}_k = \frac{p_k \cdot e_v}{h \cdot e_v}, \quad h = p_1 + \dots + p_K + \text{rest}

    A product splits into the products of its summands, and so does a cosine: :math:`|h|`, :math:`|e_v|` and
    the scale are alike for all parts and cancel. Without a rest the shares add up to 1. A view whose part
    points away from the item has a negative share; the others then share more than 1.

    Args:
        parts: What each view adds to the session vector (`Fusion.parts`).
        session: The session vector.
        item: The embedding that the item is scored with.

    Shapes:
        - parts: ``(B, K, d)``, session: ``(B, d)``, item: ``(B, d)``
        - output: ``(B, K)``; not finite where the score is 0

    >>> parts = torch.tensor([[[3.0, 0.0], [1.0, 2.0]]])
    >>> shares(parts, parts.sum(1), torch.tensor([[2.0, 0.0]])).tolist()
    [[0.75, 0.25]]
    """
    score = (session * item).sum(-1, keepdim=True)  # (B, 1)
    return (parts @ item.unsqueeze(-1)).squeeze(-1) / score


class Fusion(nn.Module):
    """Makes one session vector of interests and views.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, and gates ``(B, K)`` or None
    """

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Fuse.

        Args:
            h: The interest that each view reads.
            z: Projected views.
            mask: Which views are known.
            merge: The backbone's own read-out.
        """
        raise NotImplementedError

    def parts(self, h: Tensor, z: Tensor, mask: Tensor) -> Tensor | None:
        """What each view adds to the session vector, ``(B, K, d)``; None for a fusion without gates."""
        return None


class GateFusion(Fusion):
    r"""Gates from both modalities weigh the interests (Eq. 10-12, arXiv:2402.13840). The default.

    .. math:: \alpha_k = Q_k^T \sigma(h_k + z_k), \quad h = W [\alpha_1 h_1 ; \dots ; \alpha_K h_K]

    The gates are not squashed. An unknown view is ``z_k = 0``, so its gate depends on behaviour alone. Gates
    start near one, so that training begins from a plain linear read-out of the interests.

    Args:
        dim: ``d``.
        interest_of_view: For each view the interest it reads, ``"long_term"`` or ``"short_term"``.
        bias: Whether ``W`` has a bias. Eq. 12 has none.

    Shapes:
        - h, z: ``(B, K, d)``, mask: ``(B, K)`` bool
        - output: session ``(B, d)``, gates ``(B, K)``
    """

    def __init__(self, dim: int, interest_of_view: tuple[str, ...], bias: bool = False) -> None:
        super().__init__()
        num_views = len(interest_of_view)
        self.gate = nn.Parameter(torch.full((num_views, dim), 2.0 / dim))  # sigmoid(0) = 1/2: d/2 * 2/d = 1
        self.readout = nn.Linear(num_views * dim, dim, bias=bias)

    def forward(self, h: Tensor, z: Tensor, mask: Tensor, merge: Merge) -> Fused:
        """Weigh each view's interest by its gate and read out."""
        gates = self._gates(h, z, mask)
        return Fused(self.readout((gates.unsqueeze(-1) * h).flatten(1)), gates)

    def parts(self, h: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        r"""The summands of Eq. 12, :math:`W_k \alpha_k h_k`, ``(B, K, d)``."""
        weighed = self._gates(h, z, mask).unsqueeze(-1) * h  # (B, K, d)
        weight = self.readout.weight.view(h.size(2), h.size(1), h.size(2))  # (d, K, d)
        return torch.einsum("bkd,ekd->bke", weighed, weight)

    def _gates(self, h: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        return torch.einsum("bkd,kd->bk", torch.sigmoid(h + z * mask.unsqueeze(-1)), self.gate)


class AverageFusion(Fusion):
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


class ConcatFusion(Fusion):
    r"""One linear read-out of all interests and all views, which enter as vectors (ours).

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


class ResidualFusion(Fusion):
    r"""The backbone's own read-out, and each view added to it through a gate for every dimension (ours).

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
        gates = self._gates(h, z, mask)
        return Fused(merge() + (gates * z).sum(1), gates.mean(-1))

    def parts(self, h: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        """The gated views, ``(B, K, d)``; the rest of the session vector is the backbone's read-out."""
        return self._gates(h, z, mask) * z

    def _gates(self, h: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        both = torch.cat((h, z), dim=-1)  # (B, K, 2d)
        opened = [torch.sigmoid(gate(both[:, k])) for k, gate in enumerate(self.gates)]
        return torch.stack(opened, dim=1) * mask.unsqueeze(-1)  # (B, K, d)


FUSIONS: dict[str, Callable[[int, tuple[str, ...]], Fusion]] = {
    "gate": GateFusion,
    "gate_bias": partial(GateFusion, bias=True),
    "average": AverageFusion,
    "concat": ConcatFusion,
    "residual": ResidualFusion,
}
