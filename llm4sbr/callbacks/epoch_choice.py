"""EpochChoice: ensures that an epoch can be chosen by validation, also the one that a step limit ends."""

from __future__ import annotations

import re
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.ranking_module import RankingModule

_METRIC = re.compile(r"val/(?:recall|mrr|ndcg)@(\d+)")


class EpochChoice(Callback):
    """Checks before training that the monitored metric will exist, and validates after a step limit.

    Lightning finds out after the first epoch that a metric does not exist. It does not validate the steps
    between the last validation and ``max_steps``, so a checkpoint never holds them. With this callback such a
    run ends as with ``max_time``: with a validation, after which the checkpoint callback decides.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the monitored metrics.

        Raises:
            InputError: If no validation gives the metric by which an epoch is chosen.
        """
        if trainer.fast_dev_run or not isinstance(pl_module, RankingModule):  # type: ignore[attr-defined]
            return
        source = getattr(trainer, "datamodule", None)
        examples = getattr(source, "examples", None)
        empty = trainer.limit_val_batches == 0 or (examples is not None and len(examples("validate")) == 0)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if not isinstance(callback, EarlyStopping | ModelCheckpoint) or not callback.monitor:
                continue
            found = _METRIC.fullmatch(callback.monitor)
            if empty and callback.monitor.startswith("val/"):
                raise InputError(
                    f"there is no validation example, so {type(callback).__name__} cannot choose an epoch by "
                    f"{callback.monitor}",
                    hint="Give validation a share (split.val_ratio), or train without this callback: "
                    "--trainer.callbacks '[]' keeps the last epoch",
                )
            ks = pl_module.val_ranking.ks
            if found is not None and int(found[1]) not in ks:
                raise InputError(
                    f"{type(callback).__name__} chooses an epoch by {callback.monitor}, but the metrics are "
                    f"at {', '.join(map(str, ks))}",
                    hint=f"Add {found[1]} to --model.ks, or set the callback's monitor",
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Request a validation after the last step."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            # The step limit overrides the least numbers of epochs and steps, and the pace of validations.
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
            trainer.check_val_every_n_epoch = trainer.check_val_every_n_epoch and 1
            trainer.should_stop = True
