"""RankingModule: validation, test and prediction for every recommender under Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import is_rankable
from llm4sbr.contracts.ranges import PositiveInt, Ranged, check_arguments
from llm4sbr.nn.candidates import Candidates
from llm4sbr.nn.metrics import SessionRanking
from llm4sbr.nn.topk import top_columns

_MANY = 1 << 16  # items


class Recommendations(NamedTuple):
    """Top-ranked items of each session."""

    example_index: Tensor  # (B,) long
    items: Tensor  # (B, k) long in 1..V, best first
    scores: Tensor  # (B, k) float


class RankingModule(Ranged, LightningModule):
    """Validates, tests and predicts with the scores that `forward` returns.

    Logs Recall, MRR and NDCG at every K under names such as ``val/recall@20`` and ``test/recall@20``.

    Args:
        ks: Cut-offs of the metrics.
        top_k: Number of items in a prediction (fewer if the catalogue is smaller).

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``; column ``k - 1`` is item ``k``
    """

    def __init__(self, ks: Sequence[PositiveInt] = (5, 10, 20), top_k: PositiveInt = 20) -> None:
        super().__init__()
        check_arguments(RankingModule, {"ks": ks, "top_k": top_k})  # a subclass hands them on
        # `SessionRanking` and `EpochMeans` give equal values on every rank, and a mean over ranks with
        # different numbers of sessions would be wrong: Lightning's advice to synchronise does not apply.
        warnings.filterwarnings("ignore", message=r"It is recommended to use `self.log\('(train|val|test)/")
        self.top_k = top_k
        self.candidates = Candidates()
        self.val_ranking, self.test_ranking = SessionRanking(ks), SessionRanking(ks)

    def blocks(self, batch: SessionBatch) -> Iterator[tuple[SessionBatch, Tensor]]:
        """Sessions and their scores ``(b, V)``, in blocks of a batch; here in one.

        A subclass that can score some sessions at a time bounds the memory of the scores with it.
        """
        yield batch, self(batch)

    def finite_scores(self, batch: SessionBatch, scores: Tensor) -> Tensor:
        """The scores of a block, checked.

        Raises:
            InputError: If a score is NaN or infinite (-inf masks an item), or a session has no other score.
        """
        if not is_rankable(scores):
            part = self.origin(batch)
            raise InputError(
                "the scores are not finite"
                + ("" if part is None else f"; the first numbers that are not are those of {part}"),
                hint="The training diverged, or a part of the model is broken: no metric would mean anything",
            )
        return scores

    def origin(self, batch: SessionBatch) -> str | None:
        """Name of the part whose numbers are not finite first; None if it is not known."""
        return None

    def validation_step(self, batch: SessionBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        for block, scores in self.blocks(batch):
            self.val_ranking.update(self.finite_scores(block, scores), block.target)

    def test_step(self, batch: SessionBatch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        for block, scores in self.blocks(batch):
            self.test_ranking.update(self.finite_scores(block, scores), block.target)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_ranking("val", self.val_ranking)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_ranking("test", self.test_ranking)

    def predict_step(self, batch: SessionBatch, batch_idx: int) -> Recommendations:
        """The ``top_k`` candidates of each session, best first; a score of ``-inf`` marks a missing one."""
        best, columns = [], []
        for block, scores in self.blocks(batch):
            allowed = self.candidates(self.finite_scores(block, scores), block)
            count = min(self.top_k, allowed.size(1))
            # Faster for many items; of equal scores it may take others, so small catalogues keep their order.
            values, places = top_columns(allowed, count) if allowed.size(1) > _MANY else allowed.topk(count)
            best.append(values)
            columns.append(places)
        return Recommendations(batch.example_index, torch.cat(columns) + 1, torch.cat(best))

    def _log_ranking(self, stage: str, metric: SessionRanking) -> None:
        for name, value in metric.compute().items():
            self.log(f"{stage}/{name}", value, prog_bar=stage == "val" and name in ("recall@20", "mrr@20"))
        metric.reset()
