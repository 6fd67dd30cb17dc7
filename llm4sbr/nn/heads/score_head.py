"""The contract of a score head."""

from __future__ import annotations

from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.rebuildable import Rebuildable


class ScoreHead(Rebuildable, nn.Module):
    """Changes the scores of any model, bare or wrapped: ``SBRModule(backbone, heads=[MyHead()])``.

    A subclass overrides `forward` and any other method it needs. A model applies its heads in their order.
    The constructor takes only the head's own settings; `attach` passes the sizes of the model, so create
    parameters that depend on them there.

    Attributes:
        in_training: Whether the head applies in training, too. A head with False applies in validation, test
            and prediction only, and reads the training sessions whenever a Trainer starts; other heads read
            them before training only.
        reads_views: Whether `forward` reads the views of the batch. Without such a head a server need not
            compute text vectors of predicted views.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; session: ``(B, d)``; batch: `SessionBatch`
        - output: ``(B, V)``
    """

    in_training = True
    reads_views = True

    def attach(self, backbone: SessionBackbone) -> None:
        """Set up the head for the sizes of the model. Called once, when the model is constructed."""

    def attach_text(self, backbone: SessionBackbone, text_dim: int, num_views: int) -> None:
        """Set up the head for views and titles. A wrapped model calls it once, after `attach`.

        Args:
            backbone: The model's backbone.
            text_dim: ``d_t``, size of the text vectors.
            num_views: ``K``, number of views of a session.
        """

    def item_rows(self) -> dict[str, int]:
        """Names of the head's tensors with one row per item, and the number of rows before item 1.

        A checkpoint of another catalogue is loaded row by row with it.
        """
        return {}

    def read_training_sessions(self, examples: Examples) -> None:
        """Read the statistics that the head needs from the training sessions, and from no other split.

        Store them in buffers, so that a checkpoint holds them.
        """

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Read the catalogue's titles before training.

        Args:
            titles: Title embeddings, from the same encoder as the views.
            mask: True for items that have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool
        """

    def cross_entropy(
        self, scores: Tensor, session: Tensor, batch: SessionBatch, smoothing: float
    ) -> Tensor | None:
        """Cross-entropy of the scores that `forward` would return; None to compute it from these.

        A head overrides it if it can do so in fewer passes over ``(B, V)``, which bound a step on a CPU.
        `FullSoftmax` asks the last head of a model.

        Args:
            scores: Scores of the model, after the heads before this one.
            session: Session vectors behind the scores.
            batch: Sessions, with their targets.
            smoothing: Label smoothing.

        Shapes:
            - output: scalar, averaged over the batch
        """
        return None

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Return the changed scores.

        Args:
            scores: Scores of the model, after the heads before this one.
            session: Session vectors behind the scores.
            batch: Sessions. In a wrapped model ``views`` holds the views, and ``view_mask`` marks those that
                the heads may use.
        """
        raise NotImplementedError
