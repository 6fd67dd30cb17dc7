"""SessionBackbone: the contract that a session-based recommender implements."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import PositiveInt, check_arguments
from llm4sbr.contracts.rebuildable import Rebuildable


class SessionBackbone(Rebuildable, nn.Module, ABC):
    """Base class of session-based recommenders: encodes a batch of sessions into two interest vectors.

    A model with a single session vector returns it as both interests, or returns its pooled and its last
    hidden state. `llm4sbr.EmbeddingBackbone` implements this contract with a table of item embeddings. Check
    your own backbone with `llm4sbr.testing.assert_backbone`.

    Attributes:
        scores_each_item_alone: Whether the score of an item does not depend on the other items of the
            catalogue. If False, as for a `score` that normalises over the catalogue, the model cannot be
            trained on a sample of the items (`llm4sbr.nn.losses.SampledSoftmax`).

    Args:
        num_items: ``V``, number of items; ids run from 1, and 0 is padding.
        embedding_dim: ``d``, size of item and interest vectors.

    Shapes:
        - encode: `SessionBatch` -> ``long_term (B, d)``, ``short_term (B, d)``
        - merge: `Interests` -> ``(B, d)``
        - score: ``(B, d)``, `Interests` -> ``(B, V)``, column ``k - 1`` is item ``k``
        - item_embeddings: ``(V, d)``, row ``k - 1`` is item ``k``; no padding row
    """

    scores_each_item_alone = True

    def __init__(self, num_items: PositiveInt, embedding_dim: PositiveInt = 100) -> None:
        super().__init__()
        # A subclass with a signature of its own hands them on.
        check_arguments(SessionBackbone, {"num_items": num_items, "embedding_dim": embedding_dim})
        self.num_items = num_items
        self.embedding_dim = embedding_dim

    @abstractmethod
    def encode(self, batch: SessionBatch) -> Interests:
        """Compute the long- and short-term interest of every session (Eq. 6, arXiv:2402.13840)."""

    @abstractmethod
    def merge(self, interests: Interests) -> Tensor:
        """Merge both interests into one vector per session, ``(B, d)``: the backbone's own read-out."""

    @abstractmethod
    def item_embeddings(self) -> Tensor:
        """Embeddings of items 1..V, ``(V, d)``, tied to the scores (Eq. 13, arXiv:2402.13840)."""

    def scored_items(self, interests: Interests) -> Tensor:
        """Embeddings of items 1..V that `score` multiplies with the session vector, ``(V, d)``.

        The default is `item_embeddings`. Override it if `encode` already computed the embeddings and stored
        them in `Interests.context`.
        """
        return self.item_embeddings()

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores over the whole catalogue, ``(B, V)`` (Eq. 13, arXiv:2402.13840).

        Override it if scores are more than a product with the item embeddings: if they are normalised, have
        a temperature, or depend on more of the session than one vector. `encode` passes the data for this in
        `Interests.context`. The wrapper passes its fused vector as `session`.

        Args:
            session: Session vectors, from `merge` or from the wrapper's fusion, ``(B, d)``.
            interests: Output of `encode` for these sessions.
        """
        return session @ self.scored_items(interests).T

    @classmethod
    def has_own_scores(cls) -> bool:
        """Return whether this class overrides `score`, the product with the item embeddings."""
        return cls.score is not SessionBackbone.score

    def item_rows(self) -> dict[str, int]:
        """Names of the tensors in the state dict with one row per item, and the number of rows before item 1.

        A checkpoint of another catalogue is loaded row by row with it. The default finds every parameter of
        which one item's embedding needs exactly one row. Override it if the model has further tensors with a
        row per item, such as a bias; a module that holds item numbers implements `CarriesOver` as well.

        >>> from llm4sbr.backbones import SRGNN
        >>> SRGNN(9, 4).item_rows()
        {'embedding.weight': 1}
        """
        item = self.num_items // 2  # index in item_embeddings
        every = self.named_parameters(remove_duplicate=False)
        tables = {name: table for name, table in every if table.requires_grad}
        with torch.enable_grad():
            seen = self.item_embeddings()[item].sum()
            if not seen.requires_grad:
                return {}
            grads = torch.autograd.grad(seen, list(tables.values()), allow_unused=True)
        found = {}
        for (name, table), grad in zip(tables.items(), grads, strict=True):
            rows = () if grad is None else grad.flatten(1).any(1).nonzero().flatten().tolist()
            first = rows[0] - item if len(rows) == 1 else -1
            if 0 <= first <= len(table) - self.num_items:
                found[name] = first
        return found

    def read_training_sessions(self, examples: Examples) -> None:
        """Build what the model needs from all training sessions, such as a global graph.

        It is called once, before ``fit``, with the training split only. Store the result in buffers, so that
        a checkpoint holds it.
        """

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the whole catalogue, ``(B, V)``; column ``k - 1`` is item ``k``."""
        interests = self.encode(batch)
        return self.score(self.merge(interests), interests)
