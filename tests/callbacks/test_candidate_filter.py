"""What `predict` recommends: filters of items, and the forms of the output file."""

import csv
import json

import polars as pl
import pytest
import torch
from lightning import Trainer
from shops import write_shop

from llm4sbr import InputError
from llm4sbr.baselines import BaselineModule, Popularity
from llm4sbr.callbacks import CandidateFilter, RecommendationWriter
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.candidates import Candidates
from llm4sbr.testing import make_batch


@pytest.fixture
def shop(tmp_path):
    write_shop(tmp_path, clicks=lambda session: 3 + session % 3)
    return SessionDataModule(tmp_path, split=SplitBy("column"), cache_dir=tmp_path / "cache")


def predicted(shop, tmp_path, name="out.parquet", **options):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[CandidateFilter(**options), RecommendationWriter(str(tmp_path / name))],
    )  # fmt: skip
    model = BaselineModule(Popularity(), top_k=5)
    trainer.predict(model, shop)
    assert model.candidates.allowed is None  # later predictions are not limited
    return tmp_path / name


def listed(tmp_path, name, *items):
    (tmp_path / name).write_text("\n".join(items), "utf-8")
    return str(tmp_path / name)


def test_a_mask_by_hand():
    keep = Candidates(torch.tensor([False, True, True, True]), seen=False)
    found = keep(torch.ones(2, 4), make_batch([[2, 3], [4]], padding=2)).isfinite()
    assert found.tolist() == [[False, False, False, True], [False, True, True, False]]


def test_the_sessions_own_items_are_left_out(shop, tmp_path):
    """Seen to fail with padding taken for a click and with the mask given to no prediction."""
    ids, examples = shop.catalogue.item_ids, shop.examples("predict")
    own = [{ids[item - 1] for item in examples.prefix(row)} for row in range(len(examples))]
    every = pl.read_parquet(predicted(shop, tmp_path))["item_ids"].to_list()
    assert any(clicked & set(found) for clicked, found in zip(own, every, strict=True))
    others = pl.read_parquet(predicted(shop, tmp_path, seen=False))["item_ids"].to_list()
    assert not any(clicked & set(found) for clicked, found in zip(own, others, strict=True))
    assert {len(found) for found in others} <= {4, 5}  # nine items, of which a session clicks up to five


def test_only_listed_items_are_recommended(shop, tmp_path):
    stock = listed(tmp_path, "stock.txt", "i03", " i04 ", "", "i05", "gone")
    with pytest.warns(UserWarning, match="1 of 4 items are not in the catalogue, such as 'gone'"):
        table = pl.read_parquet(
            predicted(shop, tmp_path, only=stock, without=listed(tmp_path, "no.txt", "i04"))
        )
    assert {frozenset(found) for found in table["item_ids"]} == {frozenset({"i03", "i05"})}
    assert table["scores"].list.eval(pl.element().is_finite()).list.all().all()


def test_a_list_that_cannot_be_used_is_refused(shop, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name, told in (
        (str(tmp_path / "none.txt"), "No such file"),
        (str(tmp_path / "bytes.txt"), "not UTF-8"),
        (listed(tmp_path, "empty.txt", "", " "), "empty"),
        (listed(tmp_path, "gone.txt", "gone"), "no item is left"),
    ):
        with pytest.raises(InputError, match=told):
            predicted(shop, tmp_path, only=name)


def test_every_form_holds_the_same_recommendations(shop, tmp_path):
    """Seen to fail with Parquet written under a name that ends in .csv."""
    parquet = pl.read_parquet(predicted(shop, tmp_path, seen=False)).to_dicts()
    lines = predicted(shop, tmp_path, "out.jsonl", seen=False).read_text("utf-8").splitlines()
    assert [json.loads(line)["item_ids"] for line in lines] == [row["item_ids"] for row in parquet]
    with predicted(shop, tmp_path, "out.csv", seen=False).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["session_id", "rank", "item_id", "title", "score"]
    expected = [
        (row["session_id"], str(rank), item, title)
        for row in parquet
        for rank, (item, title) in enumerate(zip(row["item_ids"], row["titles"], strict=True), start=1)
    ]
    assert [(row["session_id"], row["rank"], row["item_id"], row["title"]) for row in rows] == expected
    with pytest.raises(InputError, match=r"\.parquet, \.jsonl or \.csv"):
        RecommendationWriter("out.xlsx")
