"""The two graphs of LESSR (ordered multigraph and shortcut graph) and the layer over each."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_geometric.utils import scatter, softmax

from llm4sbr.contracts.batch import SessionBatch, build_session_graph


class LESSRGraph(NamedTuple):
    """A multigraph of a batch's transitions in click order, and a graph of its shortcuts.

    Node ``v`` receives a message from ``u`` for every transition ``u -> v``, including repeats. The messages
    of a node form a sequence in click order. All sequences of the batch are packed as in
    `torch.nn.utils.rnn.PackedSequence`: the first message of every receiver, then the second, and so on, with
    receivers sorted by decreasing number of messages.
    """

    nodes: Tensor  # (N,) long: item id of each node; the nodes of one session are contiguous
    session: Tensor  # (N,) long: row of each node's session in the batch
    last: Tensor  # (B,) long: node of each session's last click
    senders: Tensor  # (M,) long: sending node of each message, packed
    batch_sizes: Tensor  # (longest sequence,) long, on the CPU: number of messages per step
    receivers: Tensor  # (R,) long: nodes that receive a message, in packing order
    shortcuts: Tensor  # (2, S) long: distinct pairs u -> v, u clicked no later than v, u = v included


def build_lessr_graph(batch: SessionBatch) -> LESSRGraph:
    """Build both graphs of a batch, without a loop over sessions, items or clicks.

    Shapes:
        - output: ``N`` nodes, ``M`` transitions with repeats, ``R <= N`` receivers, ``S`` shortcuts

    >>> from llm4sbr.testing import make_batch
    >>> graph = build_lessr_graph(make_batch([[5, 7, 5, 5], [9]]))
    >>> graph.nodes.tolist(), graph.session.tolist(), graph.last.tolist()
    ([5, 7, 9], [0, 0, 1], [0, 2])
    >>> graph.receivers.tolist(), graph.batch_sizes.tolist(), graph.senders.tolist()
    ([0, 1], [2, 1], [1, 0, 0])
    >>> graph.shortcuts.T.tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]]
    """
    nodes, _, alias = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
    real = batch.padding_mask()  # (B, L)
    session = torch.zeros_like(nodes)
    session[alias[real]] = real.nonzero()[:, 0]
    last = alias.gather(1, batch.lengths.unsqueeze(1) - 1).squeeze(1)
    senders, batch_sizes, receivers = _pack_messages(alias, real, len(nodes))
    shortcuts = _shortcuts(alias, real, len(nodes))
    return LESSRGraph(nodes, session, last, senders, batch_sizes, receivers, shortcuts)


def _pack_messages(alias: Tensor, real: Tensor, num_nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Senders, batch sizes and receivers of the transitions."""
    step = real[:, 1:]  # (B, L-1): both ends of the transition are real
    receiver = alias[:, 1:][step]  # (M,), in click order within a session
    received = torch.bincount(receiver, minlength=num_nodes)  # (N,)
    by_receiver = receiver.argsort(stable=True)  # (M,): grouped, click order kept within a group
    receiver = receiver[by_receiver]
    first = received.cumsum(0) - received  # (N,): index of each receiver's first message
    rank = torch.arange(len(receiver), device=alias.device) - first[receiver]  # (M,)
    receivers = received.argsort(descending=True, stable=True)[: int(received.count_nonzero())]  # (R,)
    place = torch.empty_like(received)
    place[receivers] = torch.arange(len(receivers), device=alias.device)
    packed = (rank * num_nodes + place[receiver]).argsort()  # (M,)
    return alias[:, :-1][step][by_receiver][packed], torch.bincount(rank).cpu(), receivers


def _shortcuts(alias: Tensor, real: Tensor, num_nodes: int) -> Tensor:
    """Distinct pairs of nodes whose clicks occur in this order, ``(2, S)``."""
    width = real.size(1)
    order = torch.ones(width, width, dtype=torch.bool, device=real.device).triu()  # (L, L): i <= j
    row, earlier, later = (order & real.unsqueeze(1)).nonzero().unbind(1)  # a click before a real one is real
    pairs = torch.unique(alias[row, earlier] * num_nodes + alias[row, later])  # (S,)
    return torch.stack((pairs.div(num_nodes, rounding_mode="floor"), pairs % num_nodes))


class FeatureNorm(nn.BatchNorm1d):
    """Batch normalisation over nodes or sessions that also accepts a single row.

    A last batch of one click has one row, which gives no variance; it is normalised with the running
    statistics, as in evaluation.

    Shapes:
        - features: ``(N, D)``
        - output: ``(N, D)``
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each feature."""
        if self.training and len(features) == 1:
            mean, var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
            return nn.functional.batch_norm(features, mean, var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


class EdgeOrderConv(nn.Module):
    r"""Edge-order preserving aggregation (EOPA): a GRU reads a node's incoming transitions in click order.

    .. math:: h_k = \mathrm{GRU}(x_{j_k}, h_{k-1}), \; h_0 = 0, \quad x_i' = W_{upd} [x_i ; h_{d_i}]

    The paper first maps messages by a matrix; as in the authors' code, the GRU's input weights include it.

    Args:
        in_dim: ``D``, size of the input features.
        out_dim: ``d``, size of the output features.
        dropout: Dropout on the messages.

    Shapes:
        - features: ``(N, D)``
        - output: ``(N, d)``
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = FeatureNorm(in_dim)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(in_dim, in_dim)
        self.update_self = nn.Linear(in_dim, out_dim, bias=False)  # W_upd's columns for x_i
        self.update_heard = nn.Linear(in_dim, out_dim, bias=False)  # W_upd's columns for h
        self.activation = nn.PReLU(out_dim)

    def forward(self, features: Tensor, graph: LESSRGraph) -> Tensor:
        """Aggregate once over the multigraph."""
        features = self.norm(features)
        updated = self.update_self(features)  # (N, d)
        if len(graph.senders):
            messages = self.dropout(features)[graph.senders]  # (M, D)
            _, heard = self.gru(PackedSequence(messages, graph.batch_sizes))  # (1, R, D)
            # A node without messages keeps h_0 = 0, which adds nothing.
            updated = updated.index_add(0, graph.receivers, self.update_heard(heard[0]))
        return cast(Tensor, self.activation(updated))


class ShortcutAttention(nn.Module):
    r"""Shortcut graph attention (SGAT): a node attends to all nodes that are clicked no later than it.

    .. math::
        \alpha_{ij} = \mathrm{softmax}_j\, p^T \sigma(W_{key} x_i + W_{qry} x_j + b), \quad
        x_i' = \sum_j \alpha_{ij} W_{val}\, x_j

    Args:
        in_dim: ``D``, size of the input features.
        out_dim: ``d``, size of the output features.
        dropout: Dropout on the features.

    Shapes:
        - features: ``(N, D)``
        - output: ``(N, d)``
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = FeatureNorm(in_dim)
        self.dropout = nn.Dropout(dropout)
        self.receiver = nn.Linear(in_dim, out_dim, bias=False)
        self.sender = nn.Linear(in_dim, out_dim)
        self.value = nn.Linear(in_dim, out_dim, bias=False)
        self.attend_score = nn.Linear(out_dim, 1, bias=False)
        self.activation = nn.PReLU(out_dim)

    def forward(self, features: Tensor, graph: LESSRGraph) -> Tensor:
        """Attend once over the shortcut graph."""
        features = self.dropout(self.norm(features))
        source, target = graph.shortcuts
        hidden = torch.sigmoid(self.sender(features)[source] + self.receiver(features)[target])  # (S, d)
        weight = softmax(self.attend_score(hidden), target, num_nodes=len(features))  # (S, 1)
        attended = scatter(weight * self.value(features)[source], target, dim_size=len(features))  # (N, d)
        return cast(Tensor, self.activation(attended))
