"""LLM4SBRWrapper: aligns and fuses LLM views with the interests of any backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.finite import require_finite
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.enhanced import Enhanced
from llm4sbr.nn.heads import ItemTitles, ScoreHead
from llm4sbr.nn.scoring import FusionName, Interest, WrappedScoring
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.training.distributed import gather_rows
from llm4sbr.training.sbr_module import SBRModule


class LLM4SBRWrapper(WrappedScoring, SBRModule):
    r"""Adds an LLM's views of a session to any session-based recommender (arXiv:2402.13840).

    The backbone's long- and short-term interests (Eq. 6) are aligned with the projected views (Eq. 7-9),
    gated and fused (Eq. 10-12) and scored against the tied item embeddings (Eq. 13). The loss is

    .. math:: L = L_{rec} + \tau (L_a + L_u)

    (Eq. 15). Alignment and uniformity are averaged over views, over the sessions whose view is known. Views
    come from `SessionBatch.views`, or from the `ViewCache` callback if a batch has none. Without views, or
    with every view masked, the model still scores every session. The backbone's code is not changed.

    Logs ``train/loss``, its parts ``train/rec_loss``, ``train/alignment`` and ``train/uniformity``, with a
    predictor ``train/view_prediction``, and the mean gate of each view as ``train/gate_0`` and
    ``train/gate_1``.

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
        view_dropout: Probability of hiding a view from the fusion and the heads in training.
        view_predictor: Predictor of views that no language model has inferred, such as `ViewPredictor()`;
            None leaves them unknown.
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
        fusion: FusionName = "gate",
        alignment: Alignment | None = None,
        interest_of_view: Sequence[Interest] = ("long_term", "short_term"),
        separate_projections: bool = False,
        view_dropout: Rate = 0.0,
        view_predictor: ViewPredictor | None = None,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        self.alignment = Alignment() if alignment is None else alignment
        self.assemble_views(
            text_dim, fusion, interest_of_view, separate_projections, view_dropout, view_predictor
        )
        self.keep_settings()

    def default_heads(self) -> list[ScoreHead]:
        """`ItemTitles`, followed by the default heads of a bare model."""
        return [ItemTitles(), *super().default_heads()]

    def parts(self) -> dict[str, Any]:
        """Default parts that the constructor created for omitted arguments, by argument name."""
        alignment = {"alignment": self.alignment} if hasattr(self, "alignment") else {}
        return {**super().parts(), **alignment}

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

    def stages(self, batch: SessionBatch) -> Iterator[tuple[str, Tensor]]:
        """Names and results of a forward pass, in the order of computation."""
        with self.tables_once():
            enhanced = self.enhance(batch)
            if enhanced.prediction is not None:  # made of the interests, and among the views
                yield from self.interest_stages(enhanced.interests)
                yield "the predicted views", enhanced.prediction.views
            if enhanced.seen.views is not None:
                yield "the views", enhanced.seen.views
            yield "the projected views", enhanced.z
            yield from self.score_stages(enhanced.session, enhanced.interests, enhanced.seen)

    def losses(self, batch: SessionBatch) -> dict[str, Tensor]:
        """Recommendation, alignment and uniformity losses, and their sum ``loss`` (Eq. 15)."""
        with self.loss.narrowed(self, batch) as narrow, self.tables_once():
            enhanced = self.enhance(narrow)
            rec_loss = self.loss.of_sessions(self, enhanced.session, enhanced.interests, enhanced.seen)
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
        if enhanced.prediction is not None and self.view_predictor is not None:
            losses["view_prediction"] = self.view_predictor.loss(*enhanced.prediction[:2], enhanced.mask)
            losses["loss"] = losses["loss"] + losses["view_prediction"]
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
