"""What backbones share that turn clicks into one state each."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from llm4sbr.backbones.readout import last_click, masked_mean
from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import Interests, SessionBatch


class SequenceBackbone(SessionBackbone):
    """A backbone whose read-out is the last click's state.

    That state is the short-term interest and the model's own read-out; the mean of all states is the
    long-term interest.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.

    Shapes:
        - states: `SessionBatch` -> ``(B, L, d)``; a real click's state depends on no padding
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    def __init__(self, num_items: int, embedding_dim: int) -> None:
        super().__init__(num_items, embedding_dim)
        self.embedding = nn.Embedding(num_items + 1, embedding_dim, padding_idx=0)

    @abstractmethod
    def states(self, batch: SessionBatch) -> Tensor:
        """One state per click, ``(B, L, d)``."""

    def encode(self, batch: SessionBatch) -> Interests:
        """Mean of the states (long term) and the last of them (short term)."""
        states = self.states(batch)
        return Interests(
            long_term=masked_mean(states, batch.padding_mask()),
            short_term=last_click(states, batch.lengths),
        )

    def merge(self, interests: Interests) -> Tensor:
        """The last state, ``(B, d)``."""
        return interests.short_term

    def item_embeddings(self) -> Tensor:
        """``(V, d)``, without the padding row."""
        return self.embedding.weight[1:]
