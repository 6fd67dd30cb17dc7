"""Every registered backbone: the contract, training, bare and wrapped, and its checkpoint."""

import pytest
import torch
from every_backbone import OURS
from lightning import Trainer
from plain import plain_bare, plain_wrapped
from shops import write_shop

from llm4sbr import backbones
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.testing import assert_backbone, make_batch, make_examples


def test_every_backbone_is_registered_under_its_own_name():
    """Registry and package name the same classes; one that stands in one of them alone is found here."""
    assert set(OURS) == set(backbones.__all__)
    assert all(getattr(backbones, name) is kind for name, kind in OURS.items())


@pytest.mark.parametrize("name", OURS)
def test_contract(name):
    assert_backbone(lambda num_items: OURS[name](num_items, 16))


# Two items each or more: CORE's vector of a session of one item is that item, whatever is learned. And no two
# have the same items: CORE without positions sees no order.
SESSIONS, TARGETS = [[1, 2, 3], [4, 1], [5, 2, 5], [3, 2, 6], [6, 7]], [4, 5, 6, 7, 8]


def learns(backbone, wrapped):
    """Train on five sessions; each then has its target first."""
    backbone.read_training_sessions(
        make_examples([[*session, target] for session, target in zip(SESSIONS, TARGETS, strict=True)])
    )
    batch = make_batch(SESSIONS, TARGETS)
    if wrapped:
        batch = batch._replace(views=torch.randn(1, 2, 8).expand(5, 2, 8))  # alike: they say nothing
    model = plain_wrapped(backbone, text_dim=8) if wrapped else plain_bare(backbone)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = model.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert backbone.embedding.weight[0].eq(0).all()
    assert (model.eval()(batch).argmax(1) + 1).tolist() == TARGETS


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_it_learns_five_sessions(name, wrapped):
    """Seen to fail with every session encoded as the first, where interests alone make the scores."""
    torch.manual_seed(0)
    learns(OURS[name](9, 16), wrapped)


@pytest.mark.parametrize("wrapped", [False, True])
def test_core_learns_five_sessions_without_a_transformer(wrapped):
    torch.manual_seed(0)
    learns(backbones.CORE(9, 16, encoder="ave"), wrapped)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_it_trains_and_its_checkpoint_says_the_same(name, wrapped, tmp_path):
    """With a plain Trainer and a data module, which shows the training sessions to those that read them."""
    data = SessionDataModule(
        str(write_shop(tmp_path, sessions=30)), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache")
    )
    data.prepare_data()
    torch.manual_seed(0)
    model = (plain_wrapped if wrapped else plain_bare)(OURS[name](data.num_items, 16))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    torch.manual_seed(1)
    twin = type(model).load_from_checkpoint(tmp_path / "model.ckpt")
    batch = next(iter(data.test_dataloader()))
    with torch.inference_mode():
        assert torch.equal(twin.eval()(batch), model.eval()(batch))
