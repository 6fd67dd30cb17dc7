"""The read-out of GCE-GNN, which S²-DHCN also uses."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter

from llm4sbr.contracts.batch import SessionBatch


class Clicks(NamedTuple):
    """The ``T`` real clicks of a batch, grouped by session."""

    mask: Tensor  # (B, L) bool: their places in the batch
    session: Tensor  # (T,) long: row of the batch
    to_end: Tensor  # (T,) long: number of later clicks in the session; 0 for the last click
    last: Tensor  # (B,) long: index of each session's last click among the T


def find_clicks(batch: SessionBatch) -> Clicks:
    """Find the real clicks of a batch."""
    mask = batch.padding_mask()
    session, column = mask.nonzero(as_tuple=True)
    return Clicks(mask, session, batch.lengths[session] - 1 - column, batch.lengths.cumsum(0) - 1)


class ReversedPositionAttention(nn.Module):
    r"""Soft attention over clicks with positions counted from the session's end (arXiv:2106.05081).

    .. math:: z_i = \tanh(W_3 [h_i ; p_{l-i+1}] + b_3), \quad
        \beta_i = q_2^T \sigma(W_4 z_i + W_5 s' + b_4), \quad S = \sum_i \beta_i h_i

    with :math:`s'` the mean of the clicks. The weights are not normalised, as in the paper, so they may be
    negative: see `begin_positive`.

    Args:
        dim: ``d``.
        max_length: Number of positions, the length of the longest session.

    Shapes:
        - clicks: ``(T, d)``, where: `Clicks`
        - output: ``(B, d)``
    """

    def __init__(self, dim: int, max_length: int) -> None:
        super().__init__()
        self.position = nn.Embedding(max_length, dim)
        self.locate = nn.Linear(2 * dim, dim)
        self.attend_click = nn.Linear(dim, dim)
        self.attend_session = nn.Linear(dim, dim, bias=False)
        self.attend_score = nn.Linear(dim, 1, bias=False)

    @torch.no_grad()
    def begin_positive(self) -> None:
        r"""Make :math:`q_2` non-negative, so that a session vector starts with positive click weights.

        At the start all :math:`\beta` of a session are about half the sum of :math:`q_2`. With random signs
        this sum is near zero, and a few steps of Adam can change its sign. If it is negative, ``S`` points
        away from the session; the item embeddings adapt to that, and many runs do not recover. Without
        negative entries the sum starts far from zero.
        """
        self.attend_score.weight.abs_()

    def forward(self, clicks: Tensor, where: Clicks) -> Tensor:
        """One vector per session."""
        located = torch.tanh(self.locate(torch.cat((clicks, self.position(where.to_end)), dim=-1)))  # (T, d)
        sessions = scatter(clicks, where.session, dim_size=len(where.last), reduce="mean")  # (B, d)
        query = F.embedding(where.session, self.attend_session(sessions))  # (T, d)
        weight = self.attend_score(torch.sigmoid(self.attend_click(located) + query))  # (T, 1)
        return cast(Tensor, scatter(weight * clicks, where.session, dim_size=len(where.last), reduce="sum"))
