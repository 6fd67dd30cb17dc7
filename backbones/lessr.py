"""LESSR: a lossless session graph with ordered edges and shortcuts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from llm4sbr.backbones.lessr_graph import (
    EdgeOrderConv,
    FeatureNorm,
    LESSRGraph,
    ShortcutAttention,
    build_lessr_graph,
)
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, Rate


class AttentionReadout(nn.Module):
    r"""Session vector by attention over the nodes, with the last click's node as the query.

    .. math::
        \beta_i = \mathrm{softmax}_i\, q^T \sigma(W_1 x_i + W_2 x_{last} + r), \quad
        s_g = \mathrm{PReLU}\Big(W_{out} \sum_i \beta_i x_i\Big)

    Args:
        in_dim: ``D``, size of the features.
        out_dim: ``d``, size of the session vector.
        dropout: Dropout on the features.

    Shapes:
        - features: ``(N, D)``
        - output: ``(B, d)``
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: Rate) -> None:
        super().__init__()
        self.norm = FeatureNorm(in_dim)
        self.dropout = nn.Dropout(dropout)
        self.attend_node = nn.Linear(in_dim, out_dim, bias=False)
        self.attend_last = nn.Linear(in_dim, out_dim)
        self.attend_score = nn.Linear(out_dim, 1, bias=False)
        self.output = nn.Linear(in_dim, out_dim, bias=False)
        self.activation = nn.PReLU(out_dim)

    def forward(self, features: Tensor, graph: LESSRGraph) -> Tensor:
        """One vector per session."""
        features = self.dropout(self.norm(features))
        query = self.attend_last(features[graph.last])[graph.session]  # (N, d)
        score = self.attend_score(torch.sigmoid(self.attend_node(features) + query))  # (N, 1)
        weight = softmax(score, graph.session, num_nodes=len(graph.last))
        pooled = scatter(weight * features, graph.session, dim_size=len(graph.last))  # (B, D)
        return cast(Tensor, self.activation(self.output(pooled)))


class LESSR(EmbeddingBackbone):
    r"""Handling information loss of graph neural networks for session-based recommendation.

    Chen and Wong, KDD 2020. Layers of `EdgeOrderConv` and `ShortcutAttention` alternate; each layer reads the
    features of all earlier layers, ``x = [x^{(0)} ; ... ; x^{(l)}]``. The read-out is linear in both,

    .. math:: s = W_h [s_g ; x_{last}] = W_h^g s_g + W_h^l x_{last}

    The two summands are the long-term and the short-term interest here, because :math:`x_{last}` itself is
    ``num_layers + 1`` times as wide as an item.

    These details follow the authors' code: batch normalisation before every layer and read-out, a PReLU
    after layers and attention, dropout, item vectors clipped to a norm of 1, and PyTorch's initialisation.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        num_layers: ``L``, number of layers of both kinds; the first is an `EdgeOrderConv`.
        dropout: Dropout on the input features of a layer.
        max_norm: Maximum norm of an item vector, which is clipped when it is read; None for no bound.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        num_layers: PositiveInt = 3,
        dropout: Rate = 0.2,
        max_norm: PositiveFloat | None = 1.0,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.max_norm = max_norm
        if max_norm is not None:
            # The first look-up would clip the vectors. With titles it clips only the sum: the learned part
            # would stay ten times too long, and its direction would change ten times as slowly.
            self.embedding.weight.data.renorm_(2, 0, max_norm)
        self.register_buffer("catalogue", torch.arange(1, num_items + 1), persistent=False)
        width = embedding_dim
        self.layers = nn.ModuleList()
        for number in range(num_layers):
            layer = ShortcutAttention if number % 2 else EdgeOrderConv
            self.layers.append(layer(width, embedding_dim, dropout))
            width += embedding_dim
        self.pool = AttentionReadout(width, embedding_dim, dropout)
        # Normalisation and dropout act on each feature separately, so they can be split like W_h.
        bound = (width + embedding_dim) ** -0.5  # of W_h as one matrix
        self.readout_global = self._readout(embedding_dim, dropout, bound)
        self.readout_last = self._readout(width, dropout, bound)

    def _readout(self, width: int, dropout: float, bound: float) -> nn.Sequential:
        linear = nn.Linear(width, self.embedding_dim, bias=False)
        nn.init.uniform_(linear.weight, -bound, bound)
        return nn.Sequential(FeatureNorm(width), nn.Dropout(dropout), linear)

    def encode(self, batch: SessionBatch) -> Interests:
        """Read-outs of the attention over the nodes (long term) and of the last click (short term)."""
        graph = build_lessr_graph(batch)
        features = self._look_up(graph.nodes)  # (N, d)
        for layer in self.layers:
            features = torch.cat((features, layer(features, graph)), dim=1)  # (N, D): D grows by d per layer
        return Interests(
            long_term=self.readout_global(self.pool(features, graph)),
            short_term=self.readout_last(features[graph.last]),
        )

    def merge(self, interests: Interests) -> Tensor:
        """Sum of both interests, ``(B, d)``."""
        return interests.long_term + interests.short_term

    def item_embeddings(self) -> Tensor:
        """Item embeddings, ``(V, d)``, without the padding row."""
        return self._look_up(cast(Tensor, self.catalogue)[: self.num_items])  # a step may have fewer

    def _look_up(self, item_ids: Tensor) -> Tensor:
        """Look up item vectors and clip them in place, like ``nn.Embedding(max_norm=...)`` but vectorised.

        The update bypasses autograd, because FSDP's weights are views that autograd does not allow to change
        in place. Under FSDP the clipping lasts for the current step only.
        """
        if self.max_norm is not None:
            self.embedding.weight.data.renorm_(2, 0, self.max_norm)
        return cast(Tensor, self.embedding(item_ids))
