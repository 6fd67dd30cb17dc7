"""The contract of a score head."""

from __future__ import annotations

from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.rebuildable import Rebuildable


class ScoreHead(Rebuildable, nn.Module):
    """Changes the scores of any model, bare or wrapped: ``SBRModule(backbone, heads=[MyHead()])``.

    A subclass overrides `forward` and what else it needs. The heads of a model apply in their order. A
    constructor takes the head's own settings only; the sizes of the model arrive in `attach`, so parameters
    that depend on them are made there.

    Attributes:
        in_training: False for a head that joins in validation, test and prediction only. It reads the
            training sessions whenever a Trainer begins, the others before training alone.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; session: ``(B, d)``; batch: `SessionBatch`
        - output: ``(B, V)``
    """

    in_training = True

    def attach(self, backbone: SessionBackbone) -> None:
        """Take the sizes of the model; called once, when the model is constructed."""

    def attach_text(self, backbone: SessionBackbone, text_dim: int, num_views: int) -> None:
        """Take the sizes of the text side; called once, after `attach`, by a model that has one.

        Args:
            backbone: The model's backbone.
            text_dim: ``d_t``, size of the text vectors.
            num_views: ``K``, views of a session.
        """

    def read_training_sessions(self, examples: Examples) -> None:
        """Take what the head needs from the training sessions, and nothing else.

        Keep what is read in buffers, so that a checkpoint holds it.
        """

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Take the catalogue's titles before training.

        Args:
            titles: Title embeddings of the encoder that made the views.
            mask: Which items have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool
        """

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """The scores as this head has them.

        Args:
            scores: The model's, changed by the heads before this one.
            session: The session vectors that were scored.
            batch: The sessions. With a text side ``views`` holds the views and ``view_mask`` those that the
                heads may see.
        """
        raise NotImplementedError
