"""Predicts with a checkpoint of a smaller catalogue, in one process or in two with other random numbers.

``python grown_catalogue.py OUT DEVICES CHECKPOINT SHOP``; the rows of the new items go into a file.
"""

import os
import sys
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from one_and_two import leave
from plain import plain_bare

from llm4sbr.backbones import SRGNN
from llm4sbr.datamodules import SessionDataModule, SplitBy

if __name__ == "__main__":
    out, devices, checkpoint, shop = sys.argv[1:]
    data = SessionDataModule(shop, split=SplitBy(by="column"), cache_dir=f"{shop}/cache")
    seed_everything(int(os.environ.get("LOCAL_RANK", "0")), verbose=False)
    model = plain_bare(SRGNN(data.num_items, 8))
    trainer = Trainer(
        devices=int(devices), strategy="ddp" if devices == "2" else "auto", accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=Path(out).parent,
    )  # fmt: skip
    trainer.test(model, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    leave(Path(out), int(devices), {"new": model.backbone.embedding.weight[-3:].tolist()})
