"""The graph of consecutive intent units of MSGIFSR, and attention over it."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from llm4sbr.contracts.batch import SessionGraph


class IntentGraph(NamedTuple):
    """The units of all sessions of a batch, sorted by level, as one list of ``N`` nodes.

    A unit of level ``k`` is a distinct run of ``k`` clicks of one session. An edge within a level leads to
    the unit that starts one click later. Edges between level 1 and level ``k`` lead from a click to the next
    unit and from a unit to the next click.
    """

    items: tuple[Tensor, ...]  # per level k: (N_k, k) long, each unit's items in click order
    level: Tensor  # (N,) long: level of each unit, from 0
    session: Tensor  # (N,) long: session of each unit
    last: Tensor  # (B, K) long: the unit of the last k clicks
    edge_index: Tensor  # (2, M) long: distinct edges; the levels of both ends define their type


def build_intent_graph(graph: SessionGraph, lengths: Tensor, levels: int) -> IntentGraph:
    """Build the multi-granularity intent graph of a whole batch without a loop over sessions.

    A session of fewer than ``k`` clicks has one unit of level ``k`` without edges: its clicks, with the last
    click repeated up to length ``k``. (The authors repeat the item with the smallest id instead.)

    Args:
        graph: The batch's graph; its nodes are the units of level 1.
        lengths: Number of clicks of each session.
        levels: ``K``.

    Shapes:
        - lengths: ``(B,)`` long
        - output: ``K`` times ``items (N_k, k)``, ``last (B, K)``, ``edge_index (2, M)``

    >>> from llm4sbr.contracts.batch import build_session_graph
    >>> item_ids, lengths = torch.tensor([[7, 5, 7, 5]]), torch.tensor([4])
    >>> units = build_intent_graph(build_session_graph(item_ids, lengths), lengths, 2)
    >>> units.items[0].tolist(), units.items[1].tolist(), units.last.tolist()
    ([[5], [7]], [[5, 7], [7, 5]], [[0, 3]])
    >>> units.edge_index.tolist()  # 5 and 7 follow each other; so do the runs; 7 before 57, 5 before 75, ...
    [[0, 1, 2, 3, 0, 1, 2, 3], [1, 0, 3, 2, 3, 2, 0, 1]]
    """
    nodes, _, alias = graph
    stride, device = len(nodes), alias.device
    click = torch.arange(alias.size(1), device=device)  # (L,)
    real = click < lengths.unsqueeze(1)  # (B, L)
    session = alias.new_zeros(stride)
    session[alias[real]] = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
    unit, offset = alias, 0  # (B, L): unit that starts at each click; number of units of lower levels
    items, sessions = [nodes.unsqueeze(1)], [session]
    last = [alias.gather(1, lengths.unsqueeze(1) - 1)]
    within, between = [_steps(alias, alias, lengths - 1, 1)], []
    for size in range(2, levels + 1):
        # A unit is the unit that is one click shorter plus the next click; both are already numbered.
        starts = (lengths - size + 1).clamp(min=1)  # (B,): runs in each session
        row, first = (click < starts.unsqueeze(1)).nonzero().unbind(1)
        final = alias[row, torch.minimum(first + size - 1, lengths[row] - 1)]
        keys, number = torch.unique((unit[row, first] - offset) * stride + final, return_inverse=True)
        shorter = keys.div(stride, rounding_mode="floor")  # (N_k,)
        items.append(torch.cat((items[-1][shorter], nodes[keys % stride].unsqueeze(1)), dim=1))
        sessions.append(sessions[-1][shorter])
        offset += len(items[-2])
        unit = torch.zeros_like(alias)
        unit[row, first] = number + offset
        last.append(unit.gather(1, starts.unsqueeze(1) - 1))
        within.append(_steps(unit, unit, lengths - size, 1))
        between += [_steps(alias, unit, lengths - size, 1), _steps(unit, alias, lengths - size, size)]
    level = torch.cat([torch.full_like(part, number) for number, part in enumerate(sessions)])
    edges = torch.cat(within + between, dim=1)
    return IntentGraph(tuple(items), level, torch.cat(sessions), torch.cat(last, dim=1), edges)


def _steps(source: Tensor, target: Tensor, count: Tensor, shift: int) -> Tensor:
    """Distinct edges from the first `count` entries of each row to the entries `shift` later, ``(2, M)``."""
    index = torch.arange(source.size(1), device=source.device)
    row, first = (index < count.unsqueeze(1)).nonzero().unbind(1)
    stride = int(target.max()) + 1
    edges = torch.unique(source[row, first] * stride + target[row, first + shift])
    return torch.stack((edges.div(stride, rounding_mode="floor"), edges % stride))


class GranularityConv(nn.Module):
    r"""One step of attention over the intent graph, in both directions of its edges.

    .. math::
        r_i = \sum_{j \to i} \text{softmax}_j\big(LeakyReLU(a^T [W x_j ; W x_i])\big)\, W x_j + x_i + b

    Each edge type (a pair of levels) has a separate softmax and a separate ``r``. In each direction, every
    type within a level has its own parameters, and all types between levels share theirs. The new state of a
    unit is the sum of its ``r``, the maximum over the heads, plus the mean of its session's units of the same
    level.

    The parameters of all types are stacked, because a type in which every unit has a single edge would get
    no gradient.

    Args:
        dim: ``d``.
        levels: ``K``.
        heads: ``H``, each of size ``d``.
        dropout: Dropout on units and attention.

    Shapes:
        - units: ``(N, d)``
        - output: ``(N, d)``
    """

    def __init__(self, dim: int, levels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.levels, self.heads, self.dim = levels, heads, dim
        kinds = levels + (levels > 1)  # within each level, then between levels
        self.weight = nn.Parameter(torch.empty(2, kinds, dim, heads, dim))  # 2: edge directions
        self.attend = nn.Parameter(torch.empty(2, kinds, 2, heads, dim))  # source, target
        self.bias = nn.Parameter(torch.empty(2, kinds, heads, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, units: Tensor, graph: IntentGraph) -> Tensor:
        """Propagate once."""
        types = torch.where(graph.level == 0, self.levels, min(self.levels, 2)).view(-1, 1, 1)  # into a unit
        total = 2 * types * units.unsqueeze(1)  # (N, 1, d): x_i of each type
        for direction, edges in enumerate((graph.edge_index, graph.edge_index.flip(0))):
            bias = self.bias[direction, graph.level] + (types - 1) * self.bias[direction, -1]  # (N, H, d)
            total = total + self._attend(self.dropout(units), graph, edges, direction) + bias
        group = graph.session * self.levels + graph.level  # (N,)
        mean = scatter(units, group, dim_size=graph.last.numel(), reduce="mean")[group]
        return cast(Tensor, total.amax(1) + mean)

    def _attend(self, units: Tensor, graph: IntentGraph, edges: Tensor, direction: int) -> Tensor:
        """Attention over edges of all types, summed: ``(N, H, d)``."""
        source, target = edges
        count = len(units)
        # Every unit appears once for edges within its level and once, `count` rows later, for other edges.
        inputs = [*torch.split(units, [len(items) for items in graph.items]), units]
        rows, fits = [], []
        for part, weight, attend in zip(inputs, self.weight[direction], self.attend[direction], strict=False):
            rows.append((part @ weight.flatten(1)).view(-1, self.heads, self.dim))
            # a^T W first, so that the wide W x is not read again.
            fits.append(part @ torch.einsum("dhe,zhe->dzh", weight, attend).flatten(1))
        projected = torch.cat(rows)  # (2N, H, d); (N, H, d) with one level
        from_source, from_target = torch.cat(fits).chunk(2, dim=1)  # (2N, H) each
        shift = count * (graph.level[source] != graph.level[target])  # (M,)
        fit = F.leaky_relu(from_source[source + shift] + from_target[target + shift], 0.2)  # (M, H)
        kind = target * self.levels + graph.level[source]  # a unit's edges of one type
        weight = self.dropout(softmax(fit, kind, num_nodes=count * self.levels))
        message = weight.unsqueeze(-1) * projected[source + shift]  # (M, H, d)
        return cast(Tensor, scatter(message, target, dim_size=count, reduce="sum"))
