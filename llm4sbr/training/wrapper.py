"""LLM4SBRWrapper: aligns and fuses LLM views with the interests of any backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import INTERESTS, Interests, SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.fusion import FUSIONS
from llm4sbr.nn.heads import ItemTitles, ScoreHead
from llm4sbr.nn.heads.item_titles import item_tables_once
from llm4sbr.training.distributed import gather_rows
from llm4sbr.training.sbr_module import SBRModule

Interest = Literal["long_term", "short_term"]


class ViewTable(Protocol):
    """Looks up the views of a batch; the view cache provides one (see `llm4sbr.views.tables`)."""

    def __call__(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Views ``(B, K, d_t)`` and their mask ``(B, K)``."""
        ...


class Enhanced(NamedTuple):
    """Interests, projected views and the fused vector of every session."""

    session: Tensor  # (B, d) fused vector
    gates: Tensor | None  # (B, K); None where the fusion has no gates
    h: Tensor  # (B, K, d) interest with which each view is aligned
    z: Tensor  # (B, K, d) projected views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    interests: Interests  # output of the backbone
    seen: SessionBatch  # the batch with its views; view_mask marks the views that the heads may use


class LLM4SBRWrapper(SBRModule):
    r"""Adds an LLM's views of a session to any session-based recommender (arXiv:2402.13840).

    The backbone's long- and short-term interests (Eq. 6) are aligned with the projected views (Eq. 7-9),
    gated and fused (Eq. 10-12) and scored against the tied item embeddings (Eq. 13). The loss is

    .. math:: L = L_{rec} + \tau (L_a + L_u)

    (Eq. 15). Alignment and uniformity are averaged over views, over the sessions whose view is known. Views
    come from `SessionBatch.views`, or from the `ViewCache` callback if a batch has none. Without views, or
    with every view masked, the model still scores every session. The backbone's code is not changed.

    Logs ``train/loss``, its parts ``train/rec_loss``, ``train/alignment`` and ``train/uniformity``, and the
    mean gate of each view as ``train/gate_0`` and ``train/gate_1``.

    Args:
        backbone: Any `SessionBackbone`.
        text_dim: ``d_t``, size of the text vectors (384 for MiniLM).
        fusion: ``"gate"`` (the paper's second version), ``"gate_bias"`` (the same with a bias in its
            read-out, as in the authors' code), ``"average"`` (the paper's first version), ``"concat"`` or
            ``"residual"`` (ours; see `llm4sbr.nn.fusion`).
        alignment: Alignment and uniformity losses with their weight; by default `Alignment()`.
        interest_of_view: Interest with which each view is paired, one entry per view.
        separate_projections: Whether each view has its own projection (Eq. 7) instead of a shared one, an
            ablation.
        view_dropout: Probability of hiding a known view from the fusion and the heads in training.
        training: Arguments of `SBRModule`: heads, scorer, loss, optimiser, … The default heads are
            `ItemTitles` and `RepeatExplore`.

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``
    """

    reads_titles = True

    def __init__(
        self,
        backbone: SessionBackbone,
        *,
        text_dim: PositiveInt = 384,
        fusion: Literal["gate", "gate_bias", "average", "concat", "residual"] = "gate",
        alignment: Alignment | None = None,
        interest_of_view: Sequence[Interest] = ("long_term", "short_term"),
        separate_projections: bool = False,
        view_dropout: Rate = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        if fusion not in FUSIONS:
            raise InputError(f"fusion must be one of {sorted(FUSIONS)}", value=fusion)
        if not interest_of_view or any(name not in INTERESTS for name in interest_of_view):
            raise InputError(f"each view reads one of {INTERESTS}", value=list(interest_of_view))
        self.alignment = Alignment() if alignment is None else alignment
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
        self.view_table: ViewTable | None = None  # set by the view cache callback
        self.keep_settings()

    def default_heads(self) -> list[ScoreHead]:
        """`ItemTitles`, followed by the default heads of a bare model."""
        return [ItemTitles(), *super().default_heads()]

    def parts(self) -> dict[str, Any]:
        """Default parts that the constructor created for omitted arguments, by argument name."""
        alignment = {"alignment": self.alignment} if hasattr(self, "alignment") else {}
        return {**super().parts(), **alignment}

    def enhance(self, batch: SessionBatch) -> Enhanced:
        """Compute interests, projected views, gates and the fused vector of every session."""
        if batch.views is None and self.view_table is not None:
            views, known = self.view_table(batch)
            batch = batch._replace(views=views, view_mask=known)
        interests = self.backbone.encode(batch)
        h = torch.stack([getattr(interests, name) for name in self.interest_of_view], dim=1)  # (B, K, d)
        if batch.views is None:
            z = torch.zeros_like(h)
            mask = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        else:
            self._check_views(batch.views)
            mask = batch.view_mask if batch.view_mask is not None else h.new_ones(h.shape[:2]).bool()
            z = self._project(batch.views.to(h.dtype)) * mask.unsqueeze(-1)  # (B, K, d)
        shown = mask
        if self.training and self.view_dropout:  # the losses use every known view
            shown = mask & (torch.rand(mask.shape, device=mask.device) >= self.view_dropout)

        def merge(**others: Tensor) -> Tensor:
            return self.backbone.merge(interests._replace(**others))

        fused = self.fusion(h, z, shown, merge)
        seen = batch if batch.views is None else batch._replace(view_mask=shown)
        return Enhanced(fused.session, fused.gates, h, z, mask, interests, seen)

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Pass the catalogue's titles to the heads, before training.

        Args:
            titles: Title embeddings, from the same encoder as the views.
            mask: True for items that have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

        Raises:
            InputError: If an embedding is not finite.
        """
        require_finite(titles, "the title embeddings")
        for head in self.score_heads():
            head.read_titles(titles, mask)

    def read(self, batch: SessionBatch) -> tuple[Tensor, Interests]:
        """The fused vector of every session, ``(B, d)`` (Eq. 12, arXiv:2402.13840), and the interests."""
        enhanced = self.enhance(batch)
        return enhanced.session, enhanced.interests

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``, for recommendation (Eq. 13, arXiv:2402.13840)."""
        with item_tables_once(self.backbone):
            return self._scores(self.enhance(batch))

    def _scores(self, enhanced: Enhanced, *, training: bool = False) -> Tensor:
        scores = self.score(enhanced.session, enhanced.interests)
        return self.join_heads(scores, enhanced.session, enhanced.seen, training=training)

    def stages(self, batch: SessionBatch) -> Iterator[tuple[str, Tensor]]:
        """Names and results of a forward pass, in the order of computation."""
        with item_tables_once(self.backbone):
            enhanced = self.enhance(batch)
            if enhanced.seen.views is not None:
                yield "the views", enhanced.seen.views
            yield "the projected views", enhanced.z
            yield from self.score_stages(enhanced.session, enhanced.interests, enhanced.seen)

    def losses(self, batch: SessionBatch) -> dict[str, Tensor]:
        """Recommendation, alignment and uniformity losses, and their sum ``loss`` (Eq. 15)."""
        with item_tables_once(self.backbone):
            enhanced = self.enhance(batch)
            rec_loss = self.loss(self._scores(enhanced, training=True), batch.target)
        if enhanced.gates is not None:
            means = enhanced.gates.detach().mean(0)  # (K,)
            self.observed = {f"gate_{view}": mean for view, mean in enumerate(means)}
        alignment, uniformity = self.alignment(*self._of_all_processes(enhanced))
        losses = {
            "loss": rec_loss + self.alignment.weighted(alignment, uniformity),
            "rec_loss": rec_loss,
            "alignment": alignment,
            "uniformity": uniformity,
        }
        if enhanced.interests.auxiliary_loss is not None:
            losses["auxiliary"] = enhanced.interests.auxiliary_loss
            losses["loss"] = losses["loss"] + losses["auxiliary"]
        return losses

    def weigh(self, losses: dict[str, Tensor], share: Tensor) -> Tensor:
        """Loss of this process; terms computed over all processes' sessions are not weighted again."""
        if not self.alignment.global_batch:
            return super().weigh(losses, share)
        global_terms = self.alignment.weighted(losses["alignment"], losses["uniformity"])
        return (losses["loss"] - global_terms) * share + global_terms

    def _of_all_processes(self, enhanced: Enhanced) -> tuple[Tensor, Tensor, Tensor]:
        """Views, interests and mask of the whole batch, gathered over the processes that share it."""
        if self._counts is None or not (self.training and self.alignment.global_batch):
            return enhanced.z, enhanced.h, enhanced.mask
        counts = self._counts.tolist()
        both = gather_rows(self, torch.cat((enhanced.z, enhanced.h), dim=-1), counts)  # (W * B, K, 2d)
        z, h = both.chunk(2, dim=-1)
        return z, h, gather_rows(self, enhanced.mask, counts)

    def _project(self, views: Tensor) -> Tensor:
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
