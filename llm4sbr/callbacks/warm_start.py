"""WarmStart: begins a fit with the weights of another run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.sbr_module import SBRModule


class WarmStart(Callback):
    """Begins a fit with the weights of another run, item by item if the catalogue has changed.

    The optimiser, the schedule and the epochs begin anew; ``fit --ckpt_path`` continues them instead. New
    items start from their titles where these are known (`llm4sbr.nn.cold_items`). A fit that is resumed from
    its own checkpoint does not start again.

    Args:
        ckpt_path: Checkpoint with the weights; None for a new model.
    """

    def __init__(self, ckpt_path: str | None = None) -> None:
        self.ckpt_path = ckpt_path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the model where to start; it loads the weights after it has read the training sessions.

        Raises:
            InputError: The model is no `SBRModule`.
        """
        if stage != "fit" or self.ckpt_path is None or trainer.ckpt_path is not None:
            return
        if not isinstance(pl_module, SBRModule):
            raise InputError("only an SBRModule starts from a checkpoint", value=type(pl_module).__name__)
        pl_module.start_from = Path(self.ckpt_path)
