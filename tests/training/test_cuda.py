"""A GPU computes what a CPU does, which all other tests ask. Without one nothing here runs."""

from functools import partial

import pytest
import torch
from every_backbone import ITEMS, OURS, TRAINING, make, seen
from letters import title_views
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from shops import PARTS, write_shop
from torch.optim import Adam

from llm4sbr import LLM4SBRWrapper, SBRModule, backbones
from llm4sbr.callbacks import ViewCache
from llm4sbr.callbacks.view_cache import HostViews
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import RepeatExplore, SequentialRules
from llm4sbr.testing import make_examples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _no_tensor_float():
    """A GRU would round its factors to ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_scores_losses_and_gradients_are_those_of_a_cpu(name, wrapped):
    """With rules and repeat-explore beside them, views known and unknown."""
    torch.manual_seed(0)
    model = make(name, wrapped, [RepeatExplore(), SequentialRules()]).eval()
    for head in model.score_heads():
        head.read_training_sessions(make_examples(TRAINING))
    with torch.no_grad():  # fresh weights are so small that hardly anything shows
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    for part in model.modules():
        if isinstance(part, torch.nn.RNNBase):
            part.train()  # cuDNN has no gradient otherwise; they have no dropout
    batch = seen([[1, 2, 3, 2], [4], [5, 5, 5], [9, 8, 7, 6, 1]], "one masked")
    found = []
    for device in (torch.device("cpu"), CUDA):
        model.to(device)
        here = move_data_to_device(batch, device)
        losses = model.losses(here)
        model.zero_grad()
        (losses["loss"] - losses.get("auxiliary", 0)).backward()  # a contrast may shuffle
        grads = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        losses = {name: value for name, value in losses.items() if name not in ("auxiliary", "loss")}
        found.append((model(here).detach(), losses, grads))
    assert found[1][0].device == CUDA
    one, other = (move_data_to_device(part, torch.device("cpu")) for part in found)
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


class TableDevice(Callback):
    """Notes what the model asks for views, and where it lies."""

    def on_train_end(self, trainer, pl_module):
        self.table = pl_module.view_table
        self.devices = {buffer.device for buffer in getattr(self.table, "table", self.table).buffers()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("room", [0.5, 0.0, None])
def test_a_model_trains_there_and_is_read_without_one(room, precision, tmp_path):
    """Views there, views that found no room there, a bare model: tested on a CPU to the same numbers."""
    shop = write_shop(tmp_path / "shop", [f"Bead {n}" for n in range(ITEMS)], sessions=60,
                      clicks=lambda s: 2 + s % 4, parts=PARTS)  # fmt: skip
    data = SessionDataModule(
        str(shop), split=SplitBy(by="column"), batch_size=8, cache_dir=str(tmp_path / "cache")
    )
    seed_everything(0, verbose=False)
    backbone, options = (
        backbones.SRGNN(ITEMS, 16),
        {"optimizer": partial(Adam, lr=0.01), "heads": [RepeatExplore()]},
    )
    model = (
        SBRModule(backbone, **options) if room is None else LLM4SBRWrapper(backbone, text_dim=8, **options)
    )
    where = TableDevice()
    best = ModelCheckpoint(dirpath=tmp_path, monitor="val/ndcg@20", mode="max")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    callbacks = [best]
    if room is not None:
        views = title_views(data, shop / "views")
        callbacks += [ViewCache(views, max_device_share=room), where]
    trainer = Trainer(
        max_epochs=5, accelerator="gpu", precision=precision, callbacks=callbacks, default_root_dir=tmp_path,
        **quiet,
    )  # fmt: skip
    trainer.fit(model, data)
    if room is not None:
        assert isinstance(where.table, HostViews) == (room == 0)
        assert where.devices == {torch.device("cpu") if room == 0 else CUDA}
    again = {"ckpt_path": best.best_model_path, "verbose": False, "weights_only": True}
    (there,) = trainer.test(model, data, **again)
    assert there["test/recall@5"] > 0.6  # chance: 5 of 11
    on_cpu = Trainer(
        accelerator="cpu", callbacks=callbacks[1:], enable_checkpointing=False, default_root_dir=tmp_path,
        **quiet,
    )  # fmt: skip
    (here,) = on_cpu.test(model, data, **again)
    if precision == "32-true":
        assert here == pytest.approx(there, abs=0.02)
