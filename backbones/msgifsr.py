"""MSGIFSR: intent units of several granularities from runs of consecutive clicks."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from llm4sbr.backbones.msgifsr_graph import GranularityConv, IntentGraph, build_intent_graph
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, Rate


class Intents(NamedTuple):
    """Data that the scores need besides the session vector."""

    coarser: Tensor  # (B, K - 1, d): session vectors of levels 2..K
    seen: Tensor  # (B, L) long: columns of the session's clicks; padding repeats the first click
    first: Tensor  # (B, L) bool: True where an item is clicked for the first time


class MSGIFSR(EmbeddingBackbone):
    r"""Multi-granularity consecutive intent units (Guo et al., WSDM 2022, arXiv:2112.13197).

    A unit of level ``k`` is a run of ``k`` clicks. Its initial state is the average of the mean of its items
    and the last state of a GRU over them. Layers of `GranularityConv` pass messages within a level and
    between clicks and longer units. For each level, the unit of the last ``k`` clicks is the query of an
    attention over all units of all levels:

    .. math::
        g_k = \sum_i \text{softmax}_i\big(q_k^T \sigma(U_k x_i + V_k l_k)\big)\, x_i, \quad
        s_k = W_k [l_k ; g_k]

    with ``l_k`` the query unit. Each level ranks clicked and unclicked items separately, a gate weights both
    rankings, and learned weights mix the levels (intent fusion ranking):

    .. math::
        P(v) = \sum_k \alpha_k \big(\phi^r_k\, \text{softmax}_{v \in s}\, \tau \cos(s_k, e_v)
        + \phi^e_k\, \text{softmax}_{v \notin s}\, \tau \cos(s_k, e_v)\big)

    `score` returns ``log P``, on which cross-entropy is exact. ``g_1`` is the long-term interest and ``l_1``
    the short-term interest; `merge` returns ``s_1``. A wrapper's fused vector therefore replaces the finest
    intent, and the coarser intents are not changed.

    Other details follow the authors' code: 8 heads of size ``d`` with a maximum over the heads, a gate shared
    by the levels, ``alpha`` initialised to ``softmax(1, 0, ...)``, units of unit length before and after the
    layers, and other parameters drawn from ``U(-1/sqrt(d), 1/sqrt(d))``. Unused parameters of their code are
    omitted. Two details differ. An item vector is cut to length one as part of the computation of a unit;
    their code shortens the row of the table in place whenever it is looked up. Dropout on units applies to
    the messages of a layer and once per direction; in their code it also applies to ``x_i`` in the sum
    above, drawn anew for every edge type.

    Args:
        num_items: ``V``.
        embedding_dim: ``d`` (authors: 256).
        levels: ``K``, number of clicks of the longest unit.
        layers: Number of propagation steps.
        heads: Number of attention heads, each of size ``d``.
        dropout: Dropout on embeddings, units and attention.
        scale: ``tau``, factor of the cosines.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
        - score: log-probabilities, ``(B, V)``
    """

    scores_each_item_alone = False

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        levels: PositiveInt = 3,
        layers: PositiveInt = 1,
        heads: PositiveInt = 8,
        dropout: Rate = 0.1,
        scale: PositiveFloat = 12.0,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        dim = embedding_dim
        self.levels, self.scale = levels, scale
        self.order = nn.ModuleList(nn.GRU(dim, dim, batch_first=True) for _ in range(levels - 1))
        self.layers = nn.ModuleList(GranularityConv(dim, levels, heads, dropout) for _ in range(layers))
        self.attend_unit = nn.ModuleList(nn.Linear(dim, dim) for _ in range(levels))
        self.attend_last = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(levels))
        self.attend_score = nn.ModuleList(nn.Linear(dim, 1, bias=False) for _ in range(levels))
        self.readout = nn.ModuleList(nn.Linear(2 * dim, dim, bias=False) for _ in range(levels))
        self.gate = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 2, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.init_uniform()
        # Logits of alpha; a single level needs none.
        self.mixture = nn.Parameter(torch.eye(levels)[0]) if levels > 1 else None

    def encode(self, batch: SessionBatch) -> Interests:
        """Attention of the last click over all units (long term) and the last click's unit (short term)."""
        clicks = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        graph = build_intent_graph(clicks, batch.lengths, self.levels)
        units = torch.cat([self._unit(items) for items in graph.items])  # (N, d)
        for layer in self.layers:
            units = layer(units, graph)
        units = F.normalize(units, dim=-1)
        local = units[graph.last]  # (B, K, d)
        overall = [self._attend(level, units, local[:, level], graph) for level in range(self.levels)]
        coarser = [
            self.readout[level](torch.cat((local[:, level], overall[level]), dim=-1))
            for level in range(1, self.levels)
        ]
        stacked = torch.stack(coarser, dim=1) if coarser else local[:, :0]  # (B, K - 1, d)
        seen = batch.columns()  # (B, L)
        first = ~(seen.unsqueeze(2) == seen.unsqueeze(1)).tril(-1).any(2)
        return Interests(overall[0], local[:, 0], context=Intents(stacked, seen, first))

    def merge(self, interests: Interests) -> Tensor:
        """Linear read-out of the finest intent, ``(B, d)``."""
        both = torch.cat((interests.short_term, interests.long_term), dim=-1)
        return cast(Tensor, self.readout[0](both))

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Log-probabilities of all items, ``(B, V)``; `session` is the finest intent."""
        intents: Intents = interests.context
        sessions = F.normalize(torch.cat((session.unsqueeze(1), intents.coarser), dim=1), dim=-1)  # (B, K, d)
        logits = self.scale * sessions @ F.normalize(self.item_embeddings(), dim=-1).T  # (B, K, V)
        gate = torch.softmax(self.gate(sessions), dim=-1)  # (B, K, 2)
        if self.mixture is not None:
            gate = gate * torch.softmax(self.mixture, dim=0).unsqueeze(-1)
        repeat, explore = gate.chunk(2, dim=-1)  # (B, K, 1) each
        column = intents.seen.unsqueeze(1).expand(-1, logits.size(1), -1)  # (B, K, L)
        clicked = logits.gather(2, column).masked_fill(~intents.first.unsqueeze(1), float("-inf"))
        # Minus infinity would make the gradient undefined for a session that clicked every item.
        unclicked = logits.scatter(2, column, torch.finfo(logits.dtype).min)
        chance = (explore * torch.softmax(unclicked, dim=-1)).sum(1)  # (B, V)
        chance = chance.scatter_add(1, intents.seen, (repeat * torch.softmax(clicked, dim=-1)).sum(1))
        return chance.clamp(min=torch.finfo(chance.dtype).tiny).log()

    def _unit(self, items: Tensor) -> Tensor:
        """Unit vectors of runs of items: ``(N_k, k)`` -> ``(N_k, d)``."""
        vectors = self.embedding(items)  # (N_k, k, d)
        vectors = self.dropout(vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1))
        mixed = vectors.mean(1)
        if items.size(1) > 1:
            _, state = self.order[items.size(1) - 2](vectors)
            mixed = (mixed + state[0]) / 2
        return F.normalize(mixed, dim=-1)

    def _attend(self, level: int, units: Tensor, last: Tensor, graph: IntentGraph) -> Tensor:
        """Soft attention of one level's last unit over the session's units of all levels, ``(B, d)``."""
        query = self.attend_last[level](last)[graph.session]  # (N, d)
        fit = self.attend_score[level](torch.sigmoid(self.attend_unit[level](units) + query))  # (N, 1)
        weight = softmax(fit, graph.session, num_nodes=len(last))
        return cast(Tensor, scatter(weight * units, graph.session, dim_size=len(last), reduce="sum"))
