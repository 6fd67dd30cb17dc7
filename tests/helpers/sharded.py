"""Training with FSDP in two processes, or in one without: kept, tested, resumed; a file has what was found.

In float64: over four epochs with momentum SASRec makes 1e-2 of a rounding of float32, 1e-7.

``python sharded.py OUT DEVICES SHOP NAMES``: names are ``BACKBONE-bare`` or ``BACKBONE-wrapped``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import two_processes
from cpu_fsdp import CPUFSDP, Float64
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from one_and_two import leave

from llm4sbr import SBRModule
from llm4sbr.callbacks import ViewCache
from llm4sbr.datamodules import SessionDataModule, SplitBy

OPTIONS: dict[str, dict[str, Any]] = {"DHCN": {"beta": 0.0}}  # its contrast shuffles sessions within a batch
HEADS = {"TextScores": [2], "ItemTitles": [2]}


class ExactViews(ViewCache):
    """Views in float64 too: a mean of titles in float32 rounds as the batch's size has it."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Widen the table."""
        super().setup(trainer, pl_module, stage)
        if self.table is not None:
            self.table.double()


def make_model(name: str, num_items: int) -> SBRModule:
    """A model with everything that has weights, from the same seed every time."""
    kind, how = name.split("-")
    torch.manual_seed(3)
    case = {
        "backbone": kind,
        "wrapped": how == "wrapped",
        "options": OPTIONS.get(kind, {}),
        "heads": HEADS,
        "predict": True,
    }
    # Not left to the Trainer: one process loads a checkpoint first and widens the model after.
    model = two_processes.make_model(num_items, case).double()
    # An optimiser with a state.
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    return model


def run(root: Path, shop: Path, devices: int, name: str) -> dict[str, Any]:
    """Four epochs at once, tested from the best checkpoint; and two, and two more from a checkpoint."""
    seed_everything(3, verbose=False)
    data = SessionDataModule(
        str(shop), split=SplitBy(by="column"), batch_size=8 // devices, eval_batch_size=4 // devices
    )

    def trainer(epochs: int) -> Trainer:
        best = ModelCheckpoint(
            root / f"{name}-{devices}", filename="best-{epoch}", monitor="val/mrr@20", mode="max"
        )
        return Trainer(
            max_epochs=epochs, accelerator="cpu", devices=devices,
            **({"strategy": CPUFSDP(), "plugins": Float64()} if devices > 1 else {"precision": "64-true"}),
            callbacks=[ExactViews(str(shop / "views")), best],
            logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=root,
            num_sanity_val_steps=0,
        )  # fmt: skip

    def numbers(trainer: Trainer) -> dict[str, float]:
        return {metric: float(value) for metric, value in trainer.callback_metrics.items()}

    whole = trainer(4)
    whole.fit(make_model(name, data.num_items), data)
    best = whole.checkpoint_callback.best_model_path
    (tested,) = trainer(1).test(
        make_model(name, data.num_items), data, ckpt_path=best, verbose=False, weights_only=False
    )
    half, saved = trainer(2), root / f"{name}-{devices}-half.ckpt"
    half.fit(make_model(name, data.num_items), data)
    half.save_checkpoint(saved, weights_only=False)
    rest = trainer(4)
    rest.fit(make_model(name, data.num_items), data, ckpt_path=str(saved), weights_only=False)
    weights = torch.load(best, weights_only=False)["state_dict"]
    return {
        "fit": numbers(whole),
        "test": tested,
        "resumed": numbers(rest),
        "weights": {weight: value.tolist() for weight, value in weights.items()},
    }


if __name__ == "__main__":
    out, devices, shop = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    leave(out, devices, {name: run(out.parent, shop, devices, name) for name in sys.argv[4:]})
