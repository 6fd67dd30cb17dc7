"""Baselines under a real Trainer: the metrics of the neural models, and training sessions only."""

import polars as pl
import pytest
import torch
from lightning.pytorch import Trainer
from plain import plain_bare

from llm4sbr import InputError, SessionRanking
from llm4sbr.backbones import SRGNN
from llm4sbr.baselines import BaselineModule, ItemKNN, Popularity, SessionKNN
from llm4sbr.callbacks import RecommendationWriter
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy

NEW = 12  # the number of the item that only test has


def write_shop(folder, test_only="i12", ring=12):
    """40 sessions around a ring of 12 items, 8 of them test; each of those ends with an item of its own."""
    rows = ["session_id,item_id,timestamp,split"]
    for session in range(40):
        part = "test" if session % 5 == 4 else "train"
        clicks = [f"i{(session + click) % ring:02d}" for click in range(3 + session % 4)]
        clicks += [test_only] if part == "test" else []
        rows += [f"s{session:03d},{item},{100 * session + at},{part}" for at, item in enumerate(clicks)]
    folder.mkdir()
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    titles = [f"i{item:02d},Bead {item}" for item in range(13)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *titles]) + "\n")
    return SessionDataModule(str(folder), split=SplitBy(by="column"), eval_batch_size=7)


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def trainer(tmp_path, *callbacks):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
    )  # fmt: skip


MODELS = [Popularity(), Popularity(within_session=True), ItemKNN(weighting="linear"), SessionKNN(k=5, idf=1)]


@pytest.mark.parametrize("model", MODELS, ids=["pop", "s-pop", "item-knn", "session-knn"])
def test_trainer_measures_what_the_metric_says(model, shop, tmp_path):
    twin = type(model)(**{name: value for name, value in vars(model).items() if not name.startswith("_")})
    twin.fit(shop.examples("train"), shop.num_items)
    run = trainer(tmp_path)
    for stage, split, measured in (
        ("val", "validate", run.validate(BaselineModule(model), shop, verbose=False)),
        ("test", "test", run.test(BaselineModule(model), shop, verbose=False)),
    ):
        expected = SessionRanking()
        loader = shop.val_dataloader() if split == "validate" else shop.test_dataloader()
        for batch in loader:
            expected.update(twin.scores(batch), batch.target)
        assert measured[0] == pytest.approx(
            {f"{stage}/{name}": value.item() for name, value in expected.compute().items()}
        )
        assert 0 < measured[0][f"{stage}/mrr@20"] < 1


def test_the_names_are_those_of_the_neural_models(shop, tmp_path):
    run = trainer(tmp_path)
    (ours,) = run.test(BaselineModule(SessionKNN()), shop, verbose=False)
    (theirs,) = run.test(plain_bare(SRGNN(shop.num_items, 4)), shop, verbose=False)
    assert list(ours) == list(theirs)


def test_the_trainers_data_module_is_read_each_time(shop, tmp_path):
    other = write_shop(tmp_path / "other", ring=5)
    module, run = BaselineModule(SessionKNN()), trainer(tmp_path)
    (first,) = run.test(module, shop, verbose=False)
    (second,) = run.test(module, other, verbose=False)
    assert first != second
    assert run.test(module, shop, verbose=False) == [first]


@pytest.mark.parametrize("model", MODELS, ids=["pop", "s-pop", "item-knn", "session-knn"])
def test_what_only_test_has_gets_nothing(model, shop, tmp_path):
    """Its click is scored 0 as a target, and its test sessions change no score of anything else."""
    module, run = BaselineModule(model), trainer(tmp_path)
    run.test(module, shop, verbose=False)
    assert shop.num_items == NEW + 1
    for batch in shop.test_dataloader():
        assert (module(batch)[:, NEW] == 0).all()
    before = [module(batch) for batch in shop.val_dataloader()]
    same = write_shop(tmp_path / "fewer", test_only="i00")  # other test clicks, one item less
    run.test(module, same, verbose=False)
    for batch, scores in zip(same.val_dataloader(), before, strict=True):
        assert torch.equal(module(batch), scores[:, :NEW])


def test_predictions_are_written_as_those_of_neural_models(shop, tmp_path):
    out = tmp_path / "recommendations.parquet"
    run = trainer(tmp_path, RecommendationWriter(str(out)))
    predicted = run.predict(BaselineModule(SessionKNN(remind=False), top_k=4), shop)
    assert sum(len(part.items) for part in predicted) == len(shop.examples("predict"))
    table = pl.read_parquet(out)
    assert table.columns == ["session_id", "item_ids", "titles", "scores"]
    assert set(table["item_ids"].list.len().to_list()) == {4}
    first = shop.examples("predict").prefix(0)
    clicked = {shop.catalogue.item_ids[item - 1] for item in first}
    best = [item for item, score in zip(table["item_ids"][0], table["scores"][0], strict=True) if score > 0]
    assert best
    assert not clicked & set(best)


def test_ties_earn_the_middle_rank(shop, tmp_path):
    class Constant:
        def fit(self, examples, num_items):
            self.num_items = num_items

        def scores(self, batch):
            return torch.ones(len(batch.lengths), self.num_items)

    (measured,) = trainer(tmp_path).test(BaselineModule(Constant(), ks=[6, 7]), shop, verbose=False)
    assert measured["test/recall@6"] == 0
    assert measured["test/recall@7"] == 1  # 13 items: 1 + 12 / 2
    assert measured["test/mrr@7"] == pytest.approx(1 / 7)


def test_without_a_data_module_it_must_be_fitted_by_hand(shop, tmp_path):
    module = BaselineModule(SessionKNN())
    with pytest.raises(InputError, match="fit"):
        trainer(tmp_path).test(module, shop.test_dataloader(), verbose=False)
    module.baseline.fit(shop.examples("train"), shop.num_items)
    by_hand = trainer(tmp_path).test(module, shop.test_dataloader(), verbose=False)
    assert by_hand == trainer(tmp_path).test(module, shop, verbose=False)


def test_a_backbone_is_no_baseline():
    with pytest.raises(InputError, match="SBRModule"):
        BaselineModule(SRGNN(5))
