"""The contract of a recommendation loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.rebuildable import Rebuildable

if TYPE_CHECKING:
    from llm4sbr.nn.scoring import Scoring


class RecommendationLoss(Rebuildable, nn.Module):
    """Base class of losses of the next item.

    A loss of scores overrides `forward` alone. A loss for large catalogues also overrides `of_sessions`,
    which decides which scores are computed and when, or `narrowed`, which decides over which items the model
    runs.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; target: ``(B,)`` long in 1..V
        - output: scalar
    """

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, averaged over its sessions."""
        raise NotImplementedError

    def of_sessions(
        self, model: Scoring, session: Tensor, interests: Interests, batch: SessionBatch
    ) -> Tensor:
        """The loss of sessions that the model has read; by default `forward` of all their scores.

        Args:
            model: Model that scores, with its heads.
            session: Session vectors, ``(B, d)``.
            interests: Interests behind them.
            batch: Sessions as the heads see them.
        """
        scores = model.join_heads(model.score(session, interests), session, batch, training=True)
        loss: Tensor = self(scores, batch.target)
        return loss

    @contextmanager
    def narrowed(self, model: Scoring, batch: SessionBatch) -> Iterator[SessionBatch]:
        """The items over which the model computes a step; by default the whole catalogue.

        Args:
            model: Model that may work over fewer items inside the block.
            batch: Sessions.

        Yields:
            The sessions, by the numbers that items have inside the block.
        """
        yield batch

    def read_training_sessions(self, examples: Examples, num_items: int) -> None:
        """Read the statistics that the loss needs from the training sessions, before training."""
