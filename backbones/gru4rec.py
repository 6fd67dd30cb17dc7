"""GRU4Rec: a recurrent network over the clicks."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from llm4sbr.backbones.sequence import SequenceBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.dropout import FastDropout


class GRU4Rec(SequenceBackbone):
    """Session-based recommendations with recurrent neural networks (Hidasi et al., arXiv:1511.06939).

    The last hidden state is the short-term interest and, as in the paper, the model's own read-out; the mean
    of the hidden states is the long-term interest. It is trained with cross-entropy over the whole catalogue
    and tied embeddings, the form that later work reports (Tan et al., arXiv:1606.08117).

    Args:
        num_items: ``V``.
        embedding_dim: ``d``, also the size of the hidden state.
        num_layers: Number of stacked GRU layers.
        dropout: Dropout on item embeddings.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        num_layers: PositiveInt = 1,
        dropout: Rate = 0.25,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.dropout = FastDropout(dropout)
        self.gru = nn.GRU(embedding_dim, embedding_dim, num_layers, batch_first=True)
        self.readout = nn.Linear(embedding_dim, embedding_dim)
        nn.init.xavier_normal_(self.embedding.weight[1:].data)

    def states(self, batch: SessionBatch) -> Tensor:
        """Hidden states after the output layer, ``(B, L, d)``."""
        # Right padding needs no packing: a state does not depend on later positions.
        states, _ = self.gru(self.dropout(self.embedding(batch.item_ids)))
        return cast(Tensor, self.readout(states))
