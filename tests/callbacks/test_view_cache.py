"""The view cache: from a store on disk to the wrapper, by content."""

import pytest
import torch
from letters import Letters
from lightning.pytorch import Trainer
from plain import plain_bare, plain_wrapped

from llm4sbr import InputError
from llm4sbr.backbones import SRGNN
from llm4sbr.callbacks import ViewCache, view_cache
from llm4sbr.callbacks.view_cache import HostViews
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore


@pytest.fixture
def shop(ring_shop):
    return SessionDataModule(str(ring_shop), split=SplitBy(by="column"), batch_size=16)


@pytest.fixture
def titles_store(shop, tmp_path):
    path = tmp_path / "views"
    with ViewStore(path) as store:
        infer_views(shop, store, encoder=Letters(), view_source="titles", progress=False)
    return path


def fit(shop, model, cache, tmp_path):
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[cache],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, shop)
    return trainer


def test_titles_reach_the_wrapper_and_stay_out_of_its_checkpoint(shop, titles_store, tmp_path):
    model = plain_wrapped(SRGNN(shop.num_items, 8), text_dim=8)
    trainer = fit(shop, model, ViewCache(str(titles_store)), tmp_path)
    batch = next(iter(shop.test_dataloader()))
    enhanced = model.enhance(batch)
    assert enhanced.mask.all()
    assert enhanced.z.abs().sum() > 0
    assert trainer.callback_metrics["train/alignment"] > 0
    assert not any("view_table" in name for name in model.state_dict())


def test_views_are_looked_up_once_and_those_that_are_not_used_are_masked(
    shop, titles_store, tmp_path, monkeypatch
):
    """Seen to fail with the table loaded again for the test."""
    loads = []
    monkeypatch.setattr(
        view_cache, "load_view_table", lambda *given: loads.append(1) or load_view_table(*given)
    )
    model = plain_wrapped(SRGNN(shop.num_items, 8), text_dim=8)
    trainer = fit(shop, model, ViewCache(str(titles_store), use=["short_term"]), tmp_path)
    trainer.test(model, shop, verbose=False)
    assert loads == [1]
    assert model.enhance(next(iter(shop.test_dataloader()))).mask.unique(dim=0).tolist() == [[False, True]]


def test_a_bare_model_does_not_pay_for_views(shop, titles_store, tmp_path):
    cache = ViewCache(str(titles_store))
    fit(shop, plain_bare(SRGNN(shop.num_items, 8)), cache, tmp_path)
    assert cache.table is None


def test_without_a_store_it_says_so_and_is_idle(shop, tmp_path):
    model = plain_wrapped(SRGNN(shop.num_items, 8), text_dim=8)
    with pytest.warns(UserWarning, match="no views"):
        fit(shop, model, ViewCache(), tmp_path)
    assert model.view_table is None


def test_views_held_on_the_host_are_the_same(shop, titles_store, tmp_path):
    model = plain_wrapped(SRGNN(shop.num_items, 8), text_dim=8)
    cache = ViewCache(str(titles_store))
    fit(shop, model, cache, tmp_path)
    batch = next(iter(shop.test_dataloader()))
    for there, here in zip(HostViews(cache.table)(batch), cache.table(batch), strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"text_dim": 5}, "8 dimensions"), ({"text_dim": 8, "interest_of_view": ["long_term"]}, "reads 1")],
)
def test_a_model_that_does_not_fit_the_store_is_refused(shop, titles_store, tmp_path, settings, problem):
    model = plain_wrapped(SRGNN(shop.num_items, 8), **settings)
    with pytest.raises(InputError, match=problem):
        fit(shop, model, ViewCache(str(titles_store)), tmp_path)


def test_another_catalogue_is_refused(ring_shop, shop, titles_store, tmp_path):
    shop.num_items  # noqa: B018 (prepares the first catalogue)
    items = ring_shop / "items.csv"
    items.write_text(items.read_text().replace("Bead 3", "Pearl 3"))
    other = SessionDataModule(str(ring_shop), split=SplitBy(by="column"))
    with pytest.raises(InputError, match="another catalogue"):
        fit(other, plain_wrapped(SRGNN(12, 8), text_dim=8), ViewCache(str(titles_store)), tmp_path)


def test_a_trainer_without_our_data_module_is_told(titles_store, tmp_path):
    model = plain_wrapped(SRGNN(12, 8), text_dim=8)
    loader = torch.utils.data.DataLoader([0], batch_size=None)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[ViewCache(str(titles_store))],
                      enable_progress_bar=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(InputError, match="data module"):
        trainer.fit(model, loader)


@pytest.mark.parametrize("bad", [{"max_device_share": 1.5}, {"max_device_share": -0.1}, {"r": 0}])
def test_a_number_out_of_range_is_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        ViewCache("views", **bad)
