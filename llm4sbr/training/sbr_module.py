"""SBRModule: trains and evaluates a bare backbone, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.contracts.rebuildable import settings
from llm4sbr.nn.heads import RepeatExplore, ScoreHead
from llm4sbr.nn.losses import FullSoftmax, RecommendationLoss
from llm4sbr.nn.row_blocks import in_blocks
from llm4sbr.nn.scorers import Scorer
from llm4sbr.nn.scoring import Scoring
from llm4sbr.training.diagnosis import LossCheck, first_not_finite
from llm4sbr.training.distributed import IdleParameters
from llm4sbr.training.epoch_means import EpochMeans
from llm4sbr.training.from_checkpoint import LoadedFromCheckpoint
from llm4sbr.training.parts import optimizer_settings
from llm4sbr.training.ranking_module import RankingModule
from llm4sbr.training.row_adam import RowAdam
from llm4sbr.training.run_state import RunState
from llm4sbr.training.schedules import CosineToEnd, configure, fuse_on_cpu

SCORES_AT_ONCE = 1 << 24  # in validation, test and prediction: 64 MB an operation


class SBRModule(Scoring, LoadedFromCheckpoint, RankingModule):
    """A bare session-based recommender under Lightning.

    The defaults were chosen by validation for bare and wrapped models together, on Beauty and MovieLens 100K
    (``experiments/README.md``). The paper's settings are in ``experiments/recipes/paper.yaml``.

    Logs ``train/loss``, the learning rate of an epoch's last step as ``train/lr``, and Recall, MRR and NDCG
    at every K under names such as ``val/recall@20`` and ``test/recall@20``.

    Args:
        backbone: Session-based recommender to train.
        heads: Score heads, applied in this order (`llm4sbr.nn.heads.ScoreHead`); by default `RepeatExplore`.
        scorer: Scorer of session vectors and items (`llm4sbr.nn.scorers`); by default `CosineScores`, or
            `OwnScores` for a backbone that overrides `score`.
        loss: Recommendation loss; by default `FullSoftmax` with smoothing 0.1.
        session_dropout: Dropout rate of the session vector before scoring, in training.
        optimizer: Factory of the optimiser; by default Adam, with a learning rate for batches of 200.
        lr_scheduler: Factory of the schedule; by default `CosineToEnd`. None keeps the rate constant.
        ks: Cut-offs of the metrics.
        top_k: Number of items in a prediction (fewer if the catalogue is smaller).

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``; column ``k - 1`` is item ``k``
    """

    def __init__(
        self,
        backbone: SessionBackbone,
        *,
        heads: Sequence[ScoreHead] | None = None,
        scorer: Scorer | None = None,
        loss: RecommendationLoss | None = None,
        session_dropout: Rate = 0.3,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=6e-3, weight_decay=1e-5),
        lr_scheduler: LRSchedulerCallable | None = CosineToEnd,
        ks: Sequence[PositiveInt] = (5, 10, 20),
        top_k: PositiveInt = 20,
    ) -> None:
        super().__init__(ks, top_k)
        self.assemble(backbone, self.default_heads() if heads is None else heads, scorer, session_dropout)
        self.loss = FullSoftmax(0.1) if loss is None else loss
        self.make_optimizer, self.make_schedule = optimizer, lr_scheduler
        self.epoch_means, self.run_state = EpochMeans(), RunState()
        self.observed: dict[str, Tensor] = {}  # means of a step, logged in addition to the losses
        self._idle, self._loss_check = IdleParameters(), LossCheck()
        self._rate = 0.0
        self._counts: Tensor | None = None  # (W,) examples per process in this step
        self.keep_settings()

    def default_heads(self) -> list[ScoreHead]:
        """Heads of a model without a ``heads`` argument: those that help both bare and wrapped models."""
        return [RepeatExplore()]

    def parts(self) -> dict[str, Any]:
        """Default parts that the constructor created for omitted arguments, by argument name."""
        return {"heads": self.score_heads(), "scorer": self.scorer, "loss": self.loss}

    def keep_settings(self) -> None:
        """Store the settings for loggers. A subclass with further parts calls it again."""
        self.save_hyperparameters(
            {**settings(self.described()), "optimizer": optimizer_settings(self.make_optimizer)}
        )

    def setup(self, stage: str) -> None:
        """Pass the training sessions to the backbone and the heads."""
        source = getattr(self.trainer, "datamodule", None)
        if source is not None and hasattr(source, "examples"):
            self.read_training_sessions(source.examples("train"), fitting=stage == "fit")
        self.start()
        if stage == "fit" and self.trainer.world_size > 1:
            # One seed for all ranks would drop the same units on each. Weights are broadcast from rank 0.
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def read_training_sessions(self, examples: Examples, *, fitting: bool) -> None:
        """Pass the training sessions to the backbone and the heads.

        Args:
            examples: Examples of the training split.
            fitting: Whether a fit begins. If False, only heads that do not join in training read the
                sessions; the checkpoint holds what the other parts have read.
        """
        if fitting:
            self.backbone.read_training_sessions(examples)
            self.loss.read_training_sessions(examples, self.backbone.num_items)
        for head in self.score_heads():
            if fitting or not head.in_training:
                head.read_training_sessions(examples)

    def blocks(self, batch: SessionBatch) -> Iterator[tuple[SessionBatch, Tensor]]:
        """Sessions and their scores ``(b, V)``, a bounded number of scores at a time."""
        yield from in_blocks(self, batch, SCORES_AT_ONCE)

    def stages(self, batch: SessionBatch) -> Iterator[tuple[str, Tensor]]:
        """Names and results of a forward pass, in the order of computation (`llm4sbr.training.diagnosis`)."""
        session, interests, batch = self.read(batch)
        yield from self.score_stages(session, interests, batch)

    def score_stages(
        self, session: Tensor, interests: Interests, batch: SessionBatch
    ) -> Iterator[tuple[str, Tensor]]:
        """The part of `stages` from the interests to the scores."""
        yield from self.interest_stages(interests)
        yield "the session vector", session
        scores = self.score(session, interests)
        yield "the scores before the heads", scores
        for head in self.score_heads(training=self.training):
            scores = head(scores, session, batch)
            yield f"the head {type(head).__name__}", scores

    def interest_stages(self, interests: Interests) -> Iterator[tuple[str, Tensor]]:
        """The part of `stages` that the backbone computes."""
        yield "the backbone's long-term interest", interests.long_term
        yield "the backbone's short-term interest", interests.short_term
        if interests.auxiliary_loss is not None:
            yield "the backbone's auxiliary loss", interests.auxiliary_loss

    def origin(self, batch: SessionBatch) -> str | None:
        """Name of the part whose numbers are not finite first."""
        return first_not_finite(self, batch)

    def losses(self, batch: SessionBatch) -> dict[str, Tensor]:
        """Named losses of a batch; training minimises ``loss``."""
        with self.loss.narrowed(self, batch) as narrow, self.tables_once():
            session, interests, seen = self.read(narrow)
            rec_loss = self.loss.of_sessions(self, session, interests, seen)
        if interests.auxiliary_loss is None:
            return {"loss": rec_loss}
        auxiliary = interests.auxiliary_loss
        return {"loss": rec_loss + auxiliary, "rec_loss": rec_loss, "auxiliary": auxiliary}

    def weigh(self, losses: dict[str, Tensor], share: Tensor) -> Tensor:
        """Loss of this process when several processes share a batch; the mean over them is the batch's loss.

        Args:
            losses: Losses of this process's part of the batch.
            share: Number of its examples divided by the mean number over all processes, so that every
                example has the same weight.
        """
        return losses["loss"] * share

    def training_step(self, batch: SessionBatch, batch_idx: int) -> Tensor:
        """One step."""
        count = (batch.target > 0).sum()  # a filler row has no target
        if self.trainer.world_size > 1:
            counts = self.all_gather(count)
            assert isinstance(counts, Tensor)
            self._counts = counts
            batch = batch._replace(target=batch.target.clamp(min=1))
        losses = self.losses(batch)
        self._loss_check.start(losses, batch)
        self.epoch_means.add({**losses, **self.observed}, count)
        if self._counts is None:
            return losses["loss"]
        loss = self.weigh(losses, count * len(self._counts) / self._counts.sum())
        if isinstance(self.trainer.strategy, DDPStrategy):
            loss = self._idle.touch(loss, self.parameters())
        return loss

    def on_after_backward(self) -> None:
        """Stop at the first loss that is not finite, before the weights change."""
        self._loss_check.finish(self, self.global_step + 1)

    def on_validation_start(self) -> None:
        """Let an optimiser that updates a part of the rows at a time finish with the others."""
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, RowAdam):
                optimizer.settle()

    def on_train_epoch_end(self) -> None:
        """Log the means of the losses and the learning rate."""
        for name, value in self.epoch_means.compute(self).items():
            self.log(f"train/{name}", value)
        self.epoch_means.reset()
        self.log("train/lr", self._rate)

    def on_train_batch_start(self, batch: SessionBatch, batch_idx: int) -> None:
        """Reset the epoch means, or restore the generator states of an interrupted run."""
        if batch_idx == 0:  # no other hook runs exactly at the start of each epoch
            self.epoch_means.reset()
        self.run_state.restore(self.global_rank, self.device)
        for optimizer in self.trainer.optimizers[:1]:  # at an epoch's end the schedule has already advanced
            self._rate = float(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and its schedule."""
        optimizer = self.make_optimizer(self.parameters())
        fuse_on_cpu(optimizer, self.parameters(), None if self._trainer is None else self._trainer.precision)
        return configure(self, optimizer, self.make_schedule and self.make_schedule(optimizer))
