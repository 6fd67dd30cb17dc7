"""Every registered backbone: the contract, training by name, bare and wrapped."""

import pytest
import torch
from lightning import Trainer
from shops import write_shop

from llm4sbr import LLM4SBRWrapper, SBRModule, backbones
from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.registry import BACKBONES, load_plugins
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.testing import assert_backbone

KINDS = load_plugins(BACKBONES)
OURS = {name: kind for name, kind in KINDS.items() if "llm4sbr.backbones" in kind.__module__}


def test_the_room_exports_what_is_registered():
    """One registration makes a backbone known everywhere; there is no other list."""
    kinds = [getattr(backbones, name) for name in backbones.__all__]
    exported = {one.__name__ for one in kinds if isinstance(one, type) and issubclass(one, SessionBackbone)}
    assert set(OURS) == exported
    assert {"SRGNN", "GRU4Rec", "SASRec", "GCEGNN", "DHCN"} <= set(OURS)  # the paper's


@pytest.mark.parametrize("name", sorted(OURS))
def test_contract(name):
    assert_backbone(lambda num_items: OURS[name](num_items, 16))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", sorted(OURS))
def test_it_trains_and_its_checkpoint_says_the_same(name, wrapped, tmp_path):
    """With a plain Trainer and a data module, which shows the training sessions to those that read them."""
    data = SessionDataModule(
        str(write_shop(tmp_path, sessions=30)), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache")
    )
    data.prepare_data()
    torch.manual_seed(0)
    model = (LLM4SBRWrapper if wrapped else SBRModule)(OURS[name](data.num_items, 16))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    torch.manual_seed(1)
    twin = type(model).load_from_checkpoint(
        tmp_path / "model.ckpt", backbone=OURS[name](data.num_items, 16), weights_only=True
    )
    batch = next(iter(data.test_dataloader()))
    with torch.inference_mode():
        assert torch.equal(twin.eval()(batch), model.eval()(batch))
