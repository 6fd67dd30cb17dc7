"""SequenceBackbone: base class of backbones with one state per click."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from llm4sbr.backbones.readout import last_click, masked_mean
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone


class SequenceBackbone(EmbeddingBackbone):
    """A backbone whose read-out is the last click's state.

    The last state is the short-term interest and the model's own read-out; the mean of all states is the
    long-term interest.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.

    Shapes:
        - states: `SessionBatch` -> ``(B, L, d)``; a real click's state must not depend on padding
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    @abstractmethod
    def states(self, batch: SessionBatch) -> Tensor:
        """One state per click, ``(B, L, d)``."""

    def encode(self, batch: SessionBatch) -> Interests:
        """Mean of the states (long term) and the last state (short term)."""
        states = self.states(batch)
        return Interests(
            long_term=masked_mean(states, batch.padding_mask()),
            short_term=last_click(states, batch.lengths),
        )

    def merge(self, interests: Interests) -> Tensor:
        """The last state, ``(B, d)``."""
        return interests.short_term
