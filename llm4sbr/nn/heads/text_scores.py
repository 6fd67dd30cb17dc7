"""TextScores: scores every title of the catalogue against the session's views."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.heads.title_axes import carried_titles, title_axes


class TextScores(ScoreHead):
    r"""Adds a score of every item's title to sessions that have a view (ours).

    The fusions of `llm4sbr.nn.fusion` add a view to the session vector, which is then compared with the
    items' behavioural embeddings. These say little about an item with few clicks and nothing about an item
    without clicks. This head compares the views with the titles themselves, both reduced to the ``p``
    principal axes of the catalogue's titles (centring removes what all titles of a shop share):

    .. math:: t_v = P^T (e_v - \mu), \quad v_k = P^T (\hat q_k - \mu), \quad
              u = \sum_k A_k v_k + B h, \quad s_v = \gamma \cos(u, t_v)

    with ``h`` the fused session vector. ``A_k`` starts as the mean over the known views and ``B`` at zero, so
    before training the head ranks by content alone. The scale ``γ`` is learned.

    Args:
        axes: ``p``, number of principal axes; at most ``d_t`` are used.

    Shapes:
        - scores: ``(B, V)``, session: ``(B, d)``, batch: `SessionBatch` with views ``(B, K, d_t)``
        - output: ``(B, V)``; nothing is added to a row without a known view, nor to an item without a title

    Raises:
        InputError: If the model is bare, without views and titles.
    """

    titles: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(self, axes: PositiveInt = 64) -> None:
        super().__init__()
        self.axes = axes
        self.attached = False

    def attach_text(self, backbone: SessionBackbone, text_dim: int, num_views: int) -> None:
        """Create ``A``, ``B`` and ``γ``."""
        axes = min(self.axes, text_dim)
        # Saved in the checkpoint: axes are unique only up to sign and rotation; serving needs no view store.
        self.register_buffer("titles", torch.zeros(backbone.num_items, axes))
        self.register_buffer("mean", torch.zeros(text_dim))
        self.register_buffer("basis", torch.zeros(text_dim, axes))
        self.of_views = nn.Parameter(torch.eye(axes).repeat(num_views, 1, 1) / num_views)  # A, (K, p, p)
        self.of_session = nn.Linear(backbone.embedding_dim, axes, bias=False)  # B
        nn.init.zeros_(self.of_session.weight)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(8.0)))  # (1,): FSDP can't shard a scalar
        self.attached = True

    @property
    def ready(self) -> bool:
        """Whether the titles have been read."""
        return bool(self.titles.any())

    @torch.no_grad()
    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Compute the principal axes of the catalogue's titles and every title along them.

        Args:
            titles: Title embeddings.
            mask: True for items that have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

        Raises:
            InputError: If the shape of the titles is not ``(V, d_t)``.
        """
        expected = (len(self.titles), len(self.mean))
        if tuple(titles.shape) != expected:
            raise InputError(f"the titles must be (V, d_t) = {expected}", value=tuple(titles.shape))
        found = title_axes(titles, mask, self.basis.size(1))
        self.mean.copy_(found.mean)
        self.basis.copy_(found.basis)
        self.titles.copy_(found.titles)

    def rows_of_items(self) -> dict[str, int]:
        """The titles."""
        return {"titles": 0} if self.attached else {}

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert the titles to another catalogue; the axes and the weights stay."""
        return {**before, **(carried_titles(before, change, 0) if "titles" in before else {})}

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Add the scaled cosines of the session's text query and every title to the scores."""
        if not self.attached:
            raise InputError(
                "TextScores needs views, which a bare model does not have",
                hint="Give the head to LLM4SBRWrapper",
            )
        if batch.views is None:
            return scores
        mask = batch.view_mask
        if mask is None:
            mask = batch.views.new_ones(batch.views.shape[:2], dtype=torch.bool)
        return scores + self.query(session, batch.views.to(self.mean.dtype), mask) @ self.titles.T

    def query(self, session: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        """Text query of the session, ``γ u / |u|``: ``(B, p)``; 0 where no view is known."""
        known = mask.unsqueeze(-1).to(views.dtype)  # (B, K, 1)
        reduced = ((normalize(views, dim=-1) - self.mean) * known) @ self.basis  # (B, K, p)
        query = torch.einsum("bkp,kpq->bq", reduced, self.of_views) + self.of_session(session)
        has_view = mask.any(1, keepdim=True).to(query.dtype)  # (B, 1)
        return self.log_scale.exp() * normalize(query, dim=-1) * has_view
