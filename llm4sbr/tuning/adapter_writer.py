"""Keeps the best adapter by validation loss as a PEFT folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_folder
from llm4sbr.tuning.tuner import TitleTuner

MONITOR = "val/loss"


class AdapterWriter(Callback):
    """Writes the adapter after each validation that was the best so far; without any, at the end.

    Args:
        out: The adapter's folder; one that is there is replaced.

    Raises:
        InputError: Something else is there.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        known = (self.out / "adapter_config.json").is_file()
        if not known and self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise InputError(
                "this is not an adapter's folder, and it is not empty",
                path=self.out,
                hint="Give a new or an empty folder: what is in it would be deleted",
            )
        self.best = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where this is the best loss yet."""
        loss = trainer.callback_metrics.get(MONITOR)
        trial = trainer.sanity_checking or trainer.fast_dev_run  # type: ignore[attr-defined]
        if trial or loss is None or not float(loss) < self.best:
            return
        self.best = float(loss)
        if trainer.is_global_zero:
            assert isinstance(pl_module, TitleTuner)
            self._save(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run too short for a validation leaves its last adapter, and says so."""
        if self.best < float("inf") or trainer.fast_dev_run or not trainer.global_step:  # type: ignore[attr-defined]
            return
        rank_zero_warn(
            f"Training ended before any validation, so {self.out} holds the last adapter and not the best. "
            "Look more often with --trainer.val_check_interval."
        )
        if trainer.is_global_zero:
            assert isinstance(pl_module, TitleTuner)
            self._save(pl_module)

    def state_dict(self) -> dict[str, float]:
        """For resuming."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """A resumed run does not overwrite a better adapter."""
        self.best = state_dict["best"]

    def _save(self, tuner: TitleTuner) -> None:
        with atomic_folder(self.out, replace=True) as scratch:
            config = tuner.llm.peft_config["default"]
            config.base_model_name_or_path = tuner.lm.identity.name  # not a path of this machine
            tuner.llm.save_pretrained(scratch, save_embedding_layers=False)  # "auto" would ask a hub
            (scratch / "README.md").unlink(missing_ok=True)  # peft's empty form of a model card
