"""SBRModule: trains and evaluates any bare backbone. The fair baseline of every comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.functional import unit_rows
from llm4sbr.nn.heads.repeat_explore import RepeatExplore
from llm4sbr.nn.heads.sequential_rules import SequentialRules
from llm4sbr.nn.losses import catalogue_cross_entropy
from llm4sbr.training.distributed import IdleParameters
from llm4sbr.training.epoch_means import EpochMeans
from llm4sbr.training.ranking_module import RankingModule
from llm4sbr.training.run_state import RunState


class SBRModule(RankingModule):
    """A bare session-based recommender under Lightning.

    Adam with the paper's settings by default (learning rate 1e-3, times 0.1 every 3 epochs, L2 1e-5). Logs
    ``train/loss``, the learning rate of an epoch's last step as ``train/lr``, and ``val/`` and ``test/``
    Recall, MRR and NDCG at every K as ``val/recall@20``.

    Args:
        backbone: The model.
        lr: Learning rate.
        weight_decay: L2 on all parameters.
        lr_step: Epochs between decays; 0 keeps the rate.
        lr_gamma: Factor of a decay.
        ks: Cut-offs of the metrics.
        top_k: Items that a prediction lists (fewer if the catalogue is smaller).
        score_scale: Score by the cosine of session and item times this number, in place of their product;
            only for backbones without scores of their own. Around 10 to 20 for a start.
        label_smoothing: Share of the target's probability that is spread over the catalogue in training.
        session_dropout: Dropout on the session vector before it meets the items, in training.
        lr_schedule: ``"step"``, as ``lr_step`` and ``lr_gamma`` say, or ``"cosine"``: along a half cosine to
            zero at the end of the Trainer's ``max_epochs``, step by step.
        rules: Weight of sequential rules beside the model's scores, in validation, test and prediction
            (`llm4sbr.nn.heads.SequentialRules`); 0 for none, around 1 for a start.
            Training does not see them.
        repeat_explore: Ask first whether the next click repeats one of the session, in training and after it
            (`llm4sbr.nn.heads.RepeatExplore`); most worth it where nobody, or nearly everybody, clicks twice.

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``; column ``k - 1`` is item ``k``
    """

    def __init__(
        self,
        backbone: SessionBackbone,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        lr_step: int = 3,
        lr_gamma: float = 0.1,
        ks: Sequence[int] = (5, 10, 20),
        top_k: int = 20,
        score_scale: float | None = None,
        label_smoothing: float = 0.0,
        session_dropout: float = 0.0,
        lr_schedule: Literal["step", "cosine"] = "step",
        rules: float = 0.0,
        repeat_explore: bool = False,
    ) -> None:
        super().__init__(ks, top_k)
        if not isinstance(backbone, SessionBackbone):
            raise InputError(
                "backbone must be a SessionBackbone",
                value=type(backbone).__name__,
                hint="Subclass llm4sbr.SessionBackbone; it asks for encode, merge and item_embeddings",
            )
        if not 0 <= label_smoothing < 1:
            raise InputError("label_smoothing is a share in [0, 1)", value=label_smoothing)
        if not 0 <= session_dropout < 1:
            raise InputError("session_dropout is a probability in [0, 1)", value=session_dropout)
        if lr_schedule not in ("step", "cosine"):
            raise InputError("lr_schedule is 'step' or 'cosine'", value=lr_schedule)
        if score_scale is not None and type(backbone).score is not SessionBackbone.score:
            raise InputError(
                f"{type(backbone).__name__} has scores of its own, so score_scale can't replace them",
                value=score_scale,
                hint="Leave score_scale out; the backbone's own options set its scale",
            )
        self.save_hyperparameters(ignore=["backbone"])
        self.rules = SequentialRules(backbone.num_items, rules) if rules else None
        self.repeats = RepeatExplore(backbone.embedding_dim) if repeat_explore else None
        self.backbone = backbone
        self.score_scale, self.label_smoothing = score_scale, label_smoothing
        self.dropout = nn.Dropout(session_dropout)
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_step, self.lr_gamma, self.lr_schedule = lr_step, lr_gamma, lr_schedule
        self.epoch_means, self.run_state = EpochMeans(), RunState()
        self.observed: dict[str, Tensor] = {}  # means over a step that are logged beside the losses
        self._idle = IdleParameters()
        self._rate = lr
        self._counts: Tensor | None = None  # (W,) examples of each of several processes in this step

    def setup(self, stage: str) -> None:
        """Show the training sessions to what is to be trained, and to the sequential rules."""
        source = getattr(self.trainer, "datamodule", None)
        if source is not None and hasattr(source, "examples"):
            if stage == "fit":
                self.backbone.read_training_sessions(source.examples("train"))
                if self.repeats is not None:
                    self.repeats.read_training_sessions(source.examples("train"))
            if self.rules is not None:
                self.rules.read_training_sessions(source.examples("train"))
        if stage == "fit" and self.trainer.world_size > 1:
            # One seed for all would drop the same units in every process. The weights are the first's anyway.
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def read(self, batch: SessionBatch) -> tuple[Tensor, Interests]:
        """One vector per session, ``(B, d)``, and the interests it was made of."""
        interests = self.backbone.encode(batch)
        return self.backbone.merge(interests), interests

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores over the catalogue, ``(B, V)``: the backbone's, or scaled cosines."""
        session = self.dropout(session)
        if self.score_scale is None:
            return self.backbone.score(session, interests)
        items = unit_rows(self.backbone.scored_items(interests))  # (V, d)
        return self.score_scale * unit_rows(session) @ items.T

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, to recommend by: with sequential rules where they have a weight."""
        session, interests = self.read(batch)
        return self.with_rules(self.with_repeats(self.score(session, interests), session, batch), batch)

    def with_repeats(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Scores ``(B, V)`` with the session's items in their place among all, or as they are."""
        return scores if self.repeats is None else self.repeats(scores, session, batch)

    def with_rules(self, scores: Tensor, batch: SessionBatch) -> Tensor:
        """Scores ``(B, V)`` with the sequential rules, or as they are."""
        return scores if self.rules is None else self.rules(scores, batch)

    def losses(self, batch: SessionBatch) -> dict[str, Tensor]:
        """Named losses of a batch; ``loss`` is what is minimised."""
        session, interests = self.read(batch)
        scores = self.with_repeats(self.score(session, interests), session, batch)
        rec_loss = self.rec_loss(scores, batch.target)
        if interests.auxiliary_loss is None:
            return {"loss": rec_loss}
        auxiliary = interests.auxiliary_loss
        return {"loss": rec_loss + auxiliary, "rec_loss": rec_loss, "auxiliary": auxiliary}

    def rec_loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over the catalogue (Eq. 14, arXiv:2402.13840)."""
        return catalogue_cross_entropy(scores, target, self.label_smoothing)

    def weigh(self, losses: dict[str, Tensor], share: Tensor) -> Tensor:
        """What this process minimises where several share a batch; the mean over them is the batch's loss.

        Args:
            losses: Of this process's part.
            share: Its examples over the mean of all processes' examples; so each example counts the same.
        """
        return losses["loss"] * share

    def training_step(self, batch: SessionBatch, batch_idx: int) -> Tensor:
        """One step."""
        count = (batch.target > 0).sum()  # a row that only fills up has no target
        if self.trainer.world_size > 1:
            counts = self.all_gather(count)
            assert isinstance(counts, Tensor)
            self._counts = counts
            batch = batch._replace(target=batch.target.clamp(min=1))
        losses = self.losses(batch)
        self.epoch_means.add({**losses, **self.observed}, count)
        if self._counts is None:
            return losses["loss"]
        loss = self.weigh(losses, count * len(self._counts) / self._counts.sum())
        if isinstance(self.trainer.strategy, DDPStrategy):
            loss = self._idle.touch(loss, self.parameters())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the means of the losses and the learning rate."""
        for name, value in self.epoch_means.compute(self).items():
            self.log(f"train/{name}", value)
        self.epoch_means.reset()
        self.log("train/lr", self._rate)

    def on_train_batch_start(self, batch: SessionBatch, batch_idx: int) -> None:
        """Begin an epoch's means, or go on with the random numbers of an interrupted run."""
        if batch_idx == 0:  # no other hook comes first in every epoch and in no part of one
            self.epoch_means.reset()
        self.run_state.restore(self.global_rank, self.device)
        for optimizer in self.trainer.optimizers[:1]:  # at an epoch's end its schedule has gone on already
            self._rate = float(optimizer.param_groups[0]["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what Lightning does not: random numbers, the epoch's means, and whose items these are."""
        checkpoint["llm4sbr"] = self.run_state.collect(
            self._catalogue(), self.epoch_means.state_dict(), self.device
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another catalogue; take up what `on_save_checkpoint` kept.

        Raises:
            InputError: The checkpoint is of a catalogue that is not the data module's.
        """
        state = checkpoint.get("llm4sbr", {})
        self.run_state.check(state, self._catalogue())
        trainer = self._trainer
        if trainer is not None and trainer.state.fn == "fit":
            means = self.run_state.resume(state, trainer.global_rank, trainer.world_size)
            if means is not None:
                self.epoch_means.load_state_dict(means, self.device)

    def _catalogue(self) -> str | None:
        """Fingerprint of the data module's catalogue, where there is one."""
        source = getattr(self._trainer, "datamodule", None)
        fingerprint = getattr(getattr(source, "catalogue", None), "fingerprint", None)
        return str(fingerprint) if fingerprint else None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam and its schedule; the CLI's --optimizer and --lr_scheduler replace both."""
        # On a CPU one fused kernel takes a quarter of the time. On a GPU the default is as good, and
        # Lightning refuses gradient clipping with a fused optimiser in mixed precision.
        on_cpu = all(weight.device.type == "cpu" for weight in self.parameters())
        fused = on_cpu and (self._trainer is None or self._trainer.precision == "32-true")
        optimizer = torch.optim.Adam(
            self.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused
        )
        if self.lr_schedule == "cosine":
            steps = self.trainer.estimated_stepping_batches
            if math.isinf(steps):
                raise InputError("a cosine schedule ends with the training; give the Trainer max_epochs")
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(int(steps), 1))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
        if self.lr_step == 0:
            return optimizer
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step, self.lr_gamma)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}
