"""Coverage counts titles that exist; an encoder that can't tell titles apart is named."""

import warnings

import pytest
import torch
from shops import write_shop

from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.views.distinctness import count_distinct, warn_indistinct
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore


def shop(tmp_path, titles):
    folder = write_shop(tmp_path / "shop", titles, parts=("train", "validate", "test"))
    return SessionDataModule(str(folder), split=SplitBy(by="column"))


@pytest.mark.filterwarnings("ignore:no clicked item", "ignore:.*no clicked item")
@pytest.mark.parametrize(
    ("titles", "share"),
    [([""] * 6, 0.0), (["Soap", *[""] * 5], None), ([f"Soap {n}" for n in range(6)], 1.0)],
)
@pytest.mark.parametrize("source", ["titles", "llm"])
def test_coverage_counts_titles_that_exist(stubs, tmp_path, titles, share, source):
    """Seen to fail with 1.0 for every split of title views, and with every stored session counted."""
    data = shop(tmp_path, titles)
    engine = stubs.StubEngine() if source == "llm" else None
    with ViewStore(tmp_path / "store") as store:
        made = infer_views(
            data, store, encoder=stubs.StubEncoder(), engine=engine, view_source=source, progress=False
        )
        loaded = load_view_table(store, data)
    examples = data.examples("validate")
    titled = sum(titles[examples.prefix(k)[-1] - 1] != "" for k in range(len(examples))) / len(examples)
    if source == "titles" or share is not None:
        assert loaded.coverage["validate"] == pytest.approx(titled if share is None else share)
        assert made.coverage["validate"] == pytest.approx(loaded.coverage["validate"])


def test_embeddings_are_counted_in_any_order():
    rows = torch.nn.functional.normalize(torch.randn(50, 8), dim=1)
    many = rows.repeat(3, 1)[torch.randperm(150)] + 1e-6 * torch.randn(150, 8)
    assert count_distinct(many) == 50


def test_titles_that_an_encoder_cannot_tell_apart_are_counted():
    """Seen to fail without the warning."""
    titles = [f"石鹸 {n}" for n in range(30)] + ["", "石鹸 0"]
    alike = torch.ones(32, 4) / 2
    alike[:3] = torch.eye(4)[:3]
    with pytest.warns(UserWarning, match="encoder E gives 4 embeddings for 30 different titles"):
        warn_indistinct(titles, alike, "E")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_indistinct(titles, torch.nn.functional.normalize(torch.randn(32, 16), dim=1), "E")
        warn_indistinct(["", ""], torch.zeros(2, 4), "E")
