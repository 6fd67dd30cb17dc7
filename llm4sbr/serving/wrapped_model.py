"""The wrapped model of a bundle, which reads known views and predicts the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, layer_norm, linear

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.scorers import Scorer
from llm4sbr.nn.scoring import WrappedScoring
from llm4sbr.nn.view_predictor import ViewPredictor


class WrappedModel(WrappedScoring):
    """A wrapped model that only scores.

    Args:
        backbone: Session-based recommender.
        heads: Score heads, in their order.
        scorer: Scorer of session vectors and items.
        views: Arguments of `WrappedScoring.assemble_views`.
    """

    def __init__(
        self, backbone: SessionBackbone, heads: list[ScoreHead], scorer: Scorer, **views: Any
    ) -> None:
        super().__init__()
        self.assemble(backbone, heads, scorer)
        self.assemble_views(**views)
        self.prediction: ProjectedPrediction | None = None

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``; `freeze` has computed the item tables."""
        session, interests, seen = self.read(batch)
        return self.join_heads(self.score(session, interests), session, seen)

    def read(self, batch: SessionBatch) -> tuple[Tensor, Interests, SessionBatch]:
        """Fused session vectors, interests, and the batch with the views that the heads may use."""
        mask = batch.view_mask
        # A graph (`torch.export`) has one path for all sessions: it must not ask what the numbers are.
        one_path = torch.compiler.is_compiling()
        all_known = batch.views is not None and (mask is None or (not one_path and bool(mask.all())))
        if self.prediction is None or all_known:
            enhanced = self.enhance(batch, predict=self.prediction is None)
            return enhanced.session, enhanced.interests, enhanced.seen
        interests = self.backbone.encode(batch)
        h = self.paired(interests)
        z = self.prediction(h, self.backbone.scored_items(interests), batch)  # (B, K, d)
        usable = self.prediction.learned.expand(h.shape[:2])
        if batch.views is not None and mask is not None:
            z = torch.where(mask.unsqueeze(-1), self.project(batch.views.to(h.dtype)), z)
            usable = usable | mask
        return self.fuse(h, z, usable, interests).session, interests, batch

    def fold(self) -> None:
        """Prepare the predictor of views: fold the projection into it, unless a head reads text views."""
        predictor = self.view_predictor
        if predictor is None or not predicts_views(self):
            self.view_predictor = None  # nothing was learned
        elif not any(head.reads_views for head in self.score_heads()):
            shared = len(self.interest_of_view) - len(
                self.further_projections
            )  # views of the first projection
            every = [*[self.projection] * shared, *self.further_projections]
            self.prediction = ProjectedPrediction(predictor, torch.stack([one.weight for one in every]))


class ProjectedPrediction(nn.Module):
    r"""A `ViewPredictor` whose last layer is multiplied with the projection (Eq. 7, arXiv:2402.13840).

    .. math:: T (W_2 x + b_2) = (T W_2) x + T b_2

    The product has ``K d`` rows in place of ``K d_t`` and is computed once. It serves models of which no head
    reads text views.

    Args:
        predictor: Trained predictor.
        projections: Weight of the projection of each view.

    Shapes:
        - projections: ``(K, d, d_t)``
        - h: ``(B, K, d)``, items: ``(V, d)``, output: ``(B, K, d)``
    """

    weight: Tensor
    bias: Tensor
    learned: Tensor

    def __init__(self, predictor: ViewPredictor, projections: Tensor) -> None:
        super().__init__()
        views, _, text_dim = projections.shape
        outer = predictor.outer.weight.view(views, text_dim, predictor.hidden)
        weight = torch.bmm(projections, outer)  # (K, d, hidden)
        bias = torch.bmm(projections, predictor.outer.bias.view(views, text_dim, 1))  # (K, d, 1)
        self.register_buffer("weight", weight.flatten(0, 1).contiguous())  # (K * d, hidden)
        self.register_buffer("bias", bias.flatten().contiguous())
        self.register_buffer("learned", predictor.learned.clone().unsqueeze(0))  # (1, K)
        self.predictor = predictor

    def forward(self, h: Tensor, items: Tensor, batch: SessionBatch) -> Tensor:
        """Projected predictions of every session."""
        many = torch.compiler.is_compiling() or len(h) > 1
        if many or batch.item_ids.size(1) > int(batch.lengths[0]):
            hidden = self.predictor.encode(h, items, batch)
        else:  # the usual request: one session, without padding, in half the operations
            clicks = embedding(batch.item_ids - 1, items)  # (1, L, d)
            given = torch.cat((h, clicks.mean(1, keepdim=True), clicks[:, -1:]), dim=1)  # (1, K + 2, d)
            hidden = gelu(self.predictor.inner(layer_norm(given, given.shape[2:]).flatten(1)))
        return linear(hidden, self.weight, self.bias).view(h.shape)


def predicts_views(model: nn.Module) -> bool:
    """Whether a model predicts the views of sessions that have none."""
    predictor = model.view_predictor if isinstance(model, WrappedScoring) else None
    return predictor is not None and bool(predictor.learned.any())
