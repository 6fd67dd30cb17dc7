"""A callback that saves the best adapter by validation loss as a PEFT folder, atomically."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_folder, recover_folder
from llm4sbr.tuning.tuner import TitleTuner

MONITOR = "val/loss"


class AdapterWriter(Callback):
    """Saves the adapter after each validation with the best loss so far; without any, at the end.

    Args:
        out: Folder of the adapter; an existing adapter is replaced.

    Raises:
        InputError: The folder exists, is not empty and is not an adapter's.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        recover_folder(self.out)
        known = (self.out / "adapter_config.json").is_file()
        if not known and self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise InputError(
                "this is not an adapter's folder, and it is not empty",
                path=self.out,
                hint="Choose a new or an empty folder: its contents would be deleted",
            )
        self.best = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the adapter if this is the best loss so far."""
        loss = trainer.callback_metrics.get(MONITOR)
        trial = trainer.sanity_checking or trainer.fast_dev_run  # type: ignore[attr-defined]
        if trial or loss is None or not float(loss) < self.best:
            return
        self.best = float(loss)
        if trainer.is_global_zero:
            assert isinstance(pl_module, TitleTuner)
            self._save(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last adapter, with a warning, if the run was too short for a validation."""
        if self.best < float("inf") or trainer.fast_dev_run or not trainer.global_step:  # type: ignore[attr-defined]
            return
        rank_zero_warn(
            f"Training ended before any validation, so {self.out} has the last adapter, not the best one. "
            "Validate more often with --trainer.val_check_interval."
        )
        if trainer.is_global_zero:
            assert isinstance(pl_module, TitleTuner)
            self._save(pl_module)

    def state_dict(self) -> dict[str, float]:
        """Return the best loss, for resuming."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the best loss, so that a resumed run does not overwrite a better adapter."""
        self.best = state_dict["best"]

    def _save(self, tuner: TitleTuner) -> None:
        with atomic_folder(self.out, replace=True) as scratch:
            config = tuner.llm.peft_config["default"]
            config.base_model_name_or_path = tuner.lm.identity.name  # not a path of this machine
            tuner.llm.save_pretrained(scratch, save_embedding_layers=False)  # "auto" would query a hub
            (scratch / "README.md").unlink(missing_ok=True)  # peft's empty model card
