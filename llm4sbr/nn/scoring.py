"""Scoring: from a batch of sessions to scores over the catalogue, for training and for serving alike.

Both classes are mixins without a constructor: a module calls `assemble` in its own constructor, after that of
`nn.Module`. Training adds a loop (`llm4sbr.training`), serving a catalogue and filters (`llm4sbr.serving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import INTERESTS, Interests, SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.enhanced import Enhanced, Prediction, ViewTable
from llm4sbr.nn.fusion import FUSIONS, Fused, Fusion
from llm4sbr.nn.heads.item_titles import item_tables_once
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.scorers import Scorer, choose_scorer
from llm4sbr.nn.view_predictor import ViewPredictor

Interest = Literal["long_term", "short_term"]
FusionName = Literal["gate", "gate_bias", "average", "concat", "residual"]


class Scoring(nn.Module):
    """Scores of a bare model: backbone, scorer and heads.

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``; column ``k - 1`` is item ``k``
    """

    backbone: SessionBackbone
    heads: nn.ModuleList
    scorer: Scorer
    dropout: nn.Dropout

    def assemble(
        self,
        backbone: SessionBackbone,
        heads: Sequence[ScoreHead],
        scorer: Scorer | None = None,
        session_dropout: float = 0.0,
    ) -> None:
        """Set the parts of a bare model, and attach the heads to the backbone.

        Args:
            backbone: Session-based recommender.
            heads: Score heads, in the order in which they apply.
            scorer: Scorer of session vectors and items; see `choose_scorer`.
            session_dropout: Dropout rate of the session vector before scoring, in training.

        Raises:
            InputError: If the backbone is not a `SessionBackbone`, or has scores of its own beside a scorer.
        """
        check_backbone(backbone)
        self.heads = nn.ModuleList(heads)
        for head in self.score_heads():
            head.attach(backbone)
        self.backbone, self.scorer = backbone, choose_scorer(backbone, scorer)
        self.dropout = nn.Dropout(session_dropout)

    def score_heads(self, *, training: bool = False) -> list[ScoreHead]:
        """The heads in their order; with ``training`` only those that join in training."""
        every = [head for head in self.heads if isinstance(head, ScoreHead)]
        return [head for head in every if head.in_training or not training]

    def read(self, batch: SessionBatch) -> tuple[Tensor, Interests]:
        """One vector per session, ``(B, d)``, and the interests that it merges."""
        interests = self.backbone.encode(batch)
        return self.backbone.merge(interests), interests

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores over the catalogue, ``(B, V)``, before the heads: those of the backbone or of the scorer."""
        session = self.dropout(session)
        if self.backbone.has_own_scores():
            return self.backbone.score(session, interests)
        scores: Tensor = self.scorer(session, self.backbone.scored_items(interests))
        return scores

    def join_heads(
        self, scores: Tensor, session: Tensor, batch: SessionBatch, *, training: bool = False
    ) -> Tensor:
        """Scores ``(B, V)`` after all heads, or after those that join in training."""
        for head in self.score_heads(training=training):
            scores = head(scores, session, batch)
        return scores

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``, for recommendation."""
        session, interests, seen = self.vectors(batch)
        return self.join_heads(self.score(session, interests), session, seen)

    def vectors(self, batch: SessionBatch) -> tuple[Tensor, Interests, SessionBatch]:
        """What the scores are computed from: session vectors ``(B, d)``, interests, and the heads' batch."""
        return *self.read(batch), batch


class WrappedScoring(Scoring):
    """Scores of a wrapped model: views are projected and fused with the backbone's interests.

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``
    """

    projection: nn.Linear
    further_projections: nn.ModuleList
    fusion: Fusion
    view_predictor: ViewPredictor | None
    text_dim: int
    view_dropout: float
    interest_of_view: tuple[str, ...]
    view_table: ViewTable | None  # views of a batch that has none; the view cache callback sets it

    def assemble_views(
        self,
        text_dim: int,
        fusion: str,
        interest_of_view: Sequence[str],
        separate_projections: bool = False,
        view_dropout: float = 0.0,
        view_predictor: ViewPredictor | None = None,
    ) -> None:
        """Set the parts that read the views, after `assemble`.

        Args:
            text_dim: ``d_t``, size of the text vectors.
            fusion: Key of `FUSIONS`.
            interest_of_view: Interest with which each view is paired, one entry per view.
            separate_projections: Whether each view has its own projection (Eq. 7).
            view_dropout: Probability of hiding a view from the fusion and the heads in training.
            view_predictor: Predictor of unknown views; None leaves them unknown.

        Raises:
            InputError: If there is no such fusion or interest.
        """
        backbone = self.backbone
        if fusion not in FUSIONS:
            raise InputError(f"fusion must be one of {sorted(FUSIONS)}", value=fusion)
        if not interest_of_view or any(name not in INTERESTS for name in interest_of_view):
            raise InputError(f"each view reads one of {INTERESTS}", value=list(interest_of_view))
        self.text_dim, self.view_dropout = text_dim, view_dropout
        self.interest_of_view = tuple(interest_of_view)
        # Eq. 7: linear and shared by all views, so a catalogue's titles can be projected once.
        self.projection = nn.Linear(text_dim, backbone.embedding_dim, bias=False)
        others = len(self.interest_of_view) - 1 if separate_projections else 0
        self.further_projections = nn.ModuleList(
            nn.Linear(text_dim, backbone.embedding_dim, bias=False) for _ in range(others)
        )
        self.fusion = FUSIONS[fusion](backbone.embedding_dim, self.interest_of_view)
        for head in self.score_heads():
            head.attach_text(backbone, text_dim, len(self.interest_of_view))
        self.view_predictor = view_predictor
        if view_predictor is not None:
            view_predictor.attach(backbone.embedding_dim, text_dim, len(self.interest_of_view))
        self.view_table = None

    def enhance(self, batch: SessionBatch, *, predict: bool = True) -> Enhanced:
        """Compute interests, projected views, gates and the fused vector of every session.

        Args:
            batch: Sessions, with or without views.
            predict: Whether the predictor, if there is one, replaces unknown views.
        """
        if batch.views is None and self.view_table is not None:
            views, known = self.view_table(batch)
            batch = batch._replace(views=views, view_mask=known)
        interests = self.backbone.encode(batch)
        h = self.paired(interests)
        if batch.views is None:
            z = torch.zeros_like(h)
            mask = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        else:
            self._check_views(batch.views)
            mask = batch.view_mask if batch.view_mask is not None else h.new_ones(h.shape[:2]).bool()
            z = self.project(batch.views.to(h.dtype)) * mask.unsqueeze(-1)  # (B, K, d)
        given, usable = z, mask
        prediction: Prediction | None = None
        if self.view_predictor is not None and predict:
            predicted = self.view_predictor(h, self.backbone.scored_items(interests), batch)
            prediction = Prediction(predicted, batch.views, self.view_predictor.choose(mask))
            batch, given, usable = self._with_predictions(batch, prediction, z, mask)
        if self.training and self.view_dropout:  # the losses use every known view
            usable = usable & (torch.rand(mask.shape, device=mask.device) >= self.view_dropout)
        fused = self.fuse(h, given, usable, interests)
        seen = batch if batch.views is None else batch._replace(view_mask=usable)
        return Enhanced(fused.session, fused.gates, h, z, mask, interests, seen, prediction)

    def paired(self, interests: Interests) -> Tensor:
        """The interest with which each view is paired, ``(B, K, d)``."""
        return torch.stack([getattr(interests, name) for name in self.interest_of_view], dim=1)

    def fuse(self, h: Tensor, z: Tensor, mask: Tensor, interests: Interests) -> Fused:
        """Fuse interests and projected views; the fusion may call the backbone's own read-out."""

        def merge(**others: Tensor) -> Tensor:
            return self.backbone.merge(interests._replace(**others))

        fused: Fused = self.fusion(h, z, mask, merge)
        return fused

    def _with_predictions(
        self, batch: SessionBatch, made: Prediction, z: Tensor, mask: Tensor
    ) -> tuple[SessionBatch, Tensor, Tensor]:
        """The batch, projected views and their mask, with the predictions in their places."""
        predicted, where = made.views.detach().to(z.dtype), made.replaced.unsqueeze(-1)
        given = torch.where(where, self.project(predicted), z)  # (B, K, d)
        views = predicted * where if made.known is None else torch.where(where, predicted, made.known)
        return batch._replace(views=views), given, mask | made.replaced

    def read(self, batch: SessionBatch) -> tuple[Tensor, Interests]:
        """The fused vector of every session, ``(B, d)`` (Eq. 12, arXiv:2402.13840), and the interests."""
        enhanced = self.enhance(batch)
        return enhanced.session, enhanced.interests

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``, for recommendation (Eq. 13, arXiv:2402.13840)."""
        with item_tables_once(self.backbone):
            return self.score_enhanced(self.enhance(batch))

    def vectors(self, batch: SessionBatch) -> tuple[Tensor, Interests, SessionBatch]:
        """Fused session vectors, interests, and the batch with the views that the heads may use."""
        enhanced = self.enhance(batch)
        return enhanced.session, enhanced.interests, enhanced.seen

    def score_enhanced(self, enhanced: Enhanced, *, training: bool = False) -> Tensor:
        """Scores ``(B, V)`` of fused sessions, after all heads or after those that join in training."""
        scores = self.score(enhanced.session, enhanced.interests)
        return self.join_heads(scores, enhanced.session, enhanced.seen, training=training)

    def project(self, views: Tensor) -> Tensor:
        """Project views ``(B, K, d_t)`` into the items' space, ``(B, K, d)`` (Eq. 7, arXiv:2402.13840)."""
        if not self.further_projections:
            projected: Tensor = self.projection(views)
            return projected
        every = (self.projection, *self.further_projections)
        return torch.stack([one(views[:, k]) for k, one in enumerate(every)], dim=1)

    def _check_views(self, views: Tensor) -> None:
        expected = (len(self.interest_of_view), self.text_dim)
        if tuple(views.shape[1:]) != expected:
            raise InputError(
                f"views must be (B, {expected[0]}, {expected[1]})",
                value=tuple(views.shape),
                hint="Set text_dim to the encoder's size and interest_of_view to one entry per view",
            )


def check_backbone(backbone: object) -> None:
    """Check the type of a backbone.

    Raises:
        InputError: If it is not a `SessionBackbone`.
    """
    if not isinstance(backbone, SessionBackbone):
        raise InputError(
            "backbone must be a SessionBackbone",
            value=type(backbone).__name__,
            hint="Subclass llm4sbr.SessionBackbone and implement encode, merge and item_embeddings",
        )
