"""NISER+: SR-GNN on the unit sphere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from llm4sbr.backbones.srgnn import SRGNN
from llm4sbr.contracts.batch import Interests, SessionBatch, build_session_graph
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, Rate
from llm4sbr.nn.functional import unit_rows


class NISERPlus(SRGNN):
    r"""Normalised item and session representations against popularity bias (Gupta et al., arXiv:1909.04276).

    SR-GNN with items and sessions normalised to length one, so that the long vector of a popular item gives
    no advantage; a scale ``σ`` restores the range of the softmax. NISER+ adds dropout on the item embeddings,
    and adds the position embedding ``p_i`` of a click to its node's state:

    .. math::
        \tilde x = x / \|x\|, \quad v_i = GNN(\tilde x)_i + p_i

        s_g = \sum_i q^T \sigma(W_1 v_n + W_2 v_i + c)\, v_i, \quad
        \hat y_k = \sigma\, \tilde x_k^T \tilde s, \quad s = W_3 [s_g ; v_n]

    The last click is the short-term interest, the attention ``s_g`` the long-term interest. `score`
    normalises any session vector, including the wrapper's fused vector. Positions count from the session's
    first kept click. The initialisation is SR-GNN's, on which the paper builds.

    Args:
        num_items: ``V``.
        embedding_dim: ``d`` (100 in the paper).
        steps: Number of propagation steps (1 in the paper).
        scale: ``σ``, the factor of the cosines (16 in the paper).
        dropout: Dropout on item embeddings before normalisation (0.1 in the paper).
        max_length: Longest session; a longer batch is an error.
        readout_bias: Whether the read-out has a bias, as in the authors' code.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; the batch's graph is built here if it has none
        - score: cosines times `scale`, ``(B, V)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        steps: PositiveInt = 1,
        scale: PositiveFloat = 16.0,
        dropout: Rate = 0.1,
        max_length: PositiveInt = 50,
        readout_bias: bool = False,
    ) -> None:
        super().__init__(num_items, embedding_dim, steps, readout_bias)
        self.scale, self.max_length = scale, max_length
        self.item_dropout = nn.Dropout(dropout)
        self.position = nn.Embedding(max_length, embedding_dim)
        self.init_uniform(self.position)

    def encode(self, batch: SessionBatch) -> Interests:
        """Soft attention over the session (long term) and the last click (short term), positions in both."""
        self.check_length(batch)
        graph = batch.graph or build_session_graph(batch.item_ids, batch.lengths)
        hidden = F.normalize(self.item_dropout(self.embedding(graph.nodes)), dim=-1)  # (N, d)
        for _ in range(self.steps):
            hidden = self.conv(hidden, graph.edge_index)
        clicks = hidden[graph.alias] + self.position.weight[: batch.item_ids.size(1)]  # (B, L, d)
        return self.attend(clicks, batch)

    def item_embeddings(self) -> Tensor:
        """Normalised item embeddings, ``(V, d)``, without the padding row."""
        return unit_rows(self.embedding.weight[1:])

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Cosines of session and items times `scale`, ``(B, V)``."""
        return self.scale * unit_rows(session) @ self.item_embeddings().T
