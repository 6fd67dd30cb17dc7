"""TAGNN: SR-GNN whose session vector depends on the item to be scored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from llm4sbr.backbones.srgnn import SRGNN
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.ranges import PositiveInt


class SessionClicks(NamedTuple):
    """The real clicks of a batch, grouped by session; ``T`` is the sum of the lengths."""

    states: Tensor  # (T, d) node of each click
    session: Tensor  # (T,) long: row of the session in the batch


class TAGNN(SRGNN):
    r"""Target attentive graph neural networks (Yu et al., SIGIR 2020, arXiv:2005.02844).

    SR-GNN's last click is the short-term interest, its soft attention the long-term interest. For each
    candidate ``t``, a third vector attends to the session with the candidate as the query (Eq. 6-7, 11):

    .. math::
        \beta_{i,t} = \mathrm{softmax}_i(v_t^T W v_i), \quad s_t = \sum_i \beta_{i,t} v_i, \quad
        y_t = v_t^T W_3 [s_t ; s_{local} ; s_{global}]

    Scores are linear in :math:`W_3`, so `merge` applies its part for both interests, and `score` adds the
    part for the target, :math:`\sum_i \beta_{i,t} (W_3^{target} v_i)^T v_t`. Both factors are products of
    clicks and items, so no vector per session and candidate is computed. Padding is masked in the attention.

    The authors' code omits :math:`W_3` in the target's part, normalises the soft attention of SR-GNN and
    includes padding in both; this model follows the paper. The initialisation is SR-GNN's, as in their code.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        steps: Number of propagation steps.
        chunk_size: Number of items scored at a time; the scores do not depend on it.
        readout_bias: Whether the read-out has a bias, as in the authors' code.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
        - score: ``(B, d)``, `Interests` -> ``(B, V)`` in ``O(T V)`` memory
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        steps: PositiveInt = 1,
        chunk_size: PositiveInt = 1024,
        readout_bias: bool = False,
    ) -> None:
        super().__init__(num_items, embedding_dim, steps, readout_bias)
        self.chunk_size = chunk_size
        self.target_attention = nn.Linear(embedding_dim, embedding_dim, bias=False)  # W
        self.target_readout = nn.Linear(embedding_dim, embedding_dim, bias=False)  # W_3's columns for s_t
        self.init_uniform(self.target_attention, self.target_readout)

    def encode(self, batch: SessionBatch) -> Interests:
        """SR-GNN's interests, with the states of all clicks for the target attention as context."""
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        hidden = self.embedding(graph.nodes)  # (N, d)
        for _ in range(self.steps):
            hidden = self.conv(hidden, graph.edge_index)
        clicks, mask = hidden[graph.alias], batch.padding_mask()  # (B, L, d), (B, L)
        session = mask.nonzero()[:, 0]  # (T,)
        return self.attend(clicks, batch)._replace(context=SessionClicks(clicks[mask], session))

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Product of session and items plus the target's part, which depends on the candidate."""
        clicks: SessionClicks = interests.context
        keys = self.target_attention(clicks.states)  # (T, d): W v_i
        values = self.target_readout(clicks.states)  # (T, d): W_3^target v_i
        scores = []
        for items in torch.split(self.item_embeddings(), self.chunk_size):  # (C, d)
            attention = self._exponents(keys @ items.T, clicks.session, session.size(0))  # (T, C)
            total = scatter(attention, clicks.session, dim_size=session.size(0))  # (B, C)
            target = scatter(attention * (values @ items.T), clicks.session, dim_size=session.size(0)) / total
            scores.append(session @ items.T + target)
        return torch.cat(scores, dim=1)

    @staticmethod
    def _exponents(logits: Tensor, session: Tensor, sessions: int) -> Tensor:
        """Numerators of a softmax within each session; dividing the later ``(B, C)`` sums is cheaper."""
        largest: Tensor = scatter(logits.detach(), session, dim_size=sessions, reduce="max")  # (B, C)
        return (logits - largest[session]).exp()
