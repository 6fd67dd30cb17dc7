"""An epoch can be chosen: the last steps are validated and kept, a metric that is missing is told."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from shops import PARTS, write_shop

from llm4sbr import InputError, SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.callbacks import EpochChoice
from llm4sbr.datamodules import SessionDataModule, SplitBy


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), sessions=60, parts=PARTS)


def trainer(folder, monitor="val/mrr@20", **options):
    kept = ModelCheckpoint(folder, filename="{step}", monitor=monitor, mode="max", save_top_k=-1)
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[EpochChoice(), kept, EarlyStopping(monitor, mode="max", patience=9)], **options,
    )  # fmt: skip


def fit(shop, folder, split=None, **options):
    seed_everything(1, verbose=False)
    data = SessionDataModule(str(shop), split=split or SplitBy(by="column"), batch_size=8)
    ks = options.pop("ks", (5, 20))
    it = trainer(folder, **options)
    it.fit(SBRModule(SRGNN(data.num_items, 8), ks=ks), data)
    return sorted(torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*.ckpt"))


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 5}, [5]),  # seen to end in an error of EarlyStopping
        ({"max_steps": 13}, [9, 13]),  # seen to keep [9]
        ({"max_steps": 5, "min_epochs": 2}, [5]),
        ({"max_steps": 13, "check_val_every_n_epoch": 4}, [13]),
        ({"max_steps": 3, "accumulate_grad_batches": 2}, [3]),
        ({"max_steps": 18}, [9, 18]),
        ({"max_epochs": 1}, [9]),
    ],
)
def test_the_last_steps_are_validated_and_kept(shop, tmp_path, options, steps):
    assert fit(shop, tmp_path, **options) == steps


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limit_val_batches": 0}, "no validation example"),
        ({"split": SplitBy(by="ratio", val_ratio=0.0)}, "no validation example"),
        ({"ks": (1, 5)}, "at 1, 5"),
        ({"monitor": "val/recall@7"}, "at 5, 20"),
    ],
)
def test_a_metric_that_no_validation_gives_is_told_before_the_first_step(shop, tmp_path, options, told):
    """Not after the first epoch, by an error of EarlyStopping."""
    with pytest.raises(InputError, match=told):
        fit(shop, tmp_path, max_epochs=1, **options)
    assert not list(tmp_path.glob("*.ckpt"))
