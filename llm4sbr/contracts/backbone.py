"""The contract between a session-based recommender and everything around it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.checks import check_whole
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.rebuildable import Rebuildable


class SessionBackbone(Rebuildable, nn.Module, ABC):
    """Any session-based recommender: from a batch of sessions to two interest vectors.

    A model with a single session vector returns it as both interests, or returns its last hidden state and
    its pooled one. `llm4sbr.EmbeddingBackbone` is this contract with a table of item embeddings. Check a
    backbone of your own with `llm4sbr.testing.assert_backbone`.

    Args:
        num_items: ``V``, the number of items; ids run from 1, 0 is padding.
        embedding_dim: ``d``, the size of item and interest vectors.

    Shapes:
        - encode: `SessionBatch` -> ``long_term (B, d)``, ``short_term (B, d)``
        - merge: `Interests` -> ``(B, d)``
        - score: ``(B, d)``, `Interests` -> ``(B, V)``, column ``k - 1`` is item ``k``
        - item_embeddings: ``(V, d)``, row ``k - 1`` is item ``k``; no padding row
    """

    def __init__(self, num_items: int, embedding_dim: int = 100) -> None:
        super().__init__()
        check_whole(num_items=num_items, embedding_dim=embedding_dim)
        self.num_items = num_items
        self.embedding_dim = embedding_dim

    @abstractmethod
    def encode(self, batch: SessionBatch) -> Interests:
        """Long- and short-term interest of every session (Eq. 6, arXiv:2402.13840)."""

    @abstractmethod
    def merge(self, interests: Interests) -> Tensor:
        """The backbone's own read-out: one vector per session, ``(B, d)``."""

    @abstractmethod
    def item_embeddings(self) -> Tensor:
        """Embeddings of items 1..V, ``(V, d)``, tied to the scores (Eq. 13, arXiv:2402.13840)."""

    def scored_items(self, interests: Interests) -> Tensor:
        """The embeddings of items 1..V that a session's vector meets in its scores, ``(V, d)``.

        They are `item_embeddings`. Override it where `encode` had to compute those and left them in
        `Interests.context`.
        """
        return self.item_embeddings()

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores over the whole catalogue, ``(B, V)`` (Eq. 13, arXiv:2402.13840).

        Override it where scores are more than a product with the item embeddings: normalised, of a
        temperature, or dependent on the session in ways that no one vector expresses; `encode` hands over
        what that takes in `Interests.context`. The wrapper gives its fused vector as `session`.

        Args:
            session: What `merge`, or the wrapper's fusion, made of the interests.
            interests: What `encode` returned for these sessions.
        """
        return session @ self.scored_items(interests).T

    def read_training_sessions(self, examples: Examples) -> None:
        """Take what the model needs from all training sessions, such as a global graph, before training.

        Called once, before ``fit``, with the training split and nothing else. Keep what is read in buffers,
        so that a checkpoint holds it.
        """

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the whole catalogue, ``(B, V)``; column ``k - 1`` is item ``k``."""
        interests = self.encode(batch)
        return self.score(self.merge(interests), interests)
