"""`llm4sbr add-items`: a table of items becomes part of a bundle."""

import pytest
import torch
from bundles import SPEC, bundle, edited, trained
from every_backbone import ITEMS, TEXT

from llm4sbr.cli import add_items as command
from llm4sbr.cli.main import main
from llm4sbr.serving import Recommender
from llm4sbr.views.identity import ModelIdentity


class Encoder:
    """Stands in for `SentenceEncoder`; embeddings depend on the text alone."""

    def __init__(self, name, device="auto"):
        self.identity = ModelIdentity(name, f"sums of {name}")

    def encode(self, texts):
        rows = [torch.randn(TEXT, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "SentenceEncoder", Encoder)
    made = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    edited(made, encoder={"name": "letters", "fingerprint": "sums of letters"})
    return made


def test_a_table_of_items_and_then_a_recommendation(folder, tmp_path, capsys):
    """Columns of the shop's own names; what is there already is left out."""
    table = tmp_path / "new.csv"
    table.write_text('sku,name\nB001,Soap 0\n007,"Soap, ""rose"""\nx y,Pearl\n')
    out = str(tmp_path / "grown")
    named = ["--columns.item", "sku", "--columns.title", "name"]
    with pytest.warns(UserWarning, match="1 items are in the catalogue already"):
        assert main(["add-items", str(folder), str(table), "--out", out, *named]) == 0
    assert f"2 of 3 items added to {ITEMS}: {out}" in capsys.readouterr().out
    assert Recommender.load(out).catalogue.titles[ITEMS:] == ('Soap, "rose"', "Pearl")
    assert main(["recommend", out, "--session", "007", "--k", "20"]) == 0
    assert "Pearl" in capsys.readouterr().out


def test_a_bare_bundle_needs_an_encoder_that_is_named(folder, tmp_path, capsys):
    bare = bundle(tmp_path / "bare", trained(wrapped=False))
    table = tmp_path / "new.csv"
    table.write_text("item_id,title\nn,Pearl\n")
    assert main(["add-items", str(bare), str(table), "--out", str(tmp_path / "grown")]) == 1
    assert "no title embeddings" in capsys.readouterr().err
    words = ["--out", str(tmp_path / "grown"), "--encoder", "letters"]
    assert main(["add-items", str(bare), str(table), *words]) == 0
    assert Recommender.load(tmp_path / "grown").catalogue.item_ids[-1] == "n"


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ("item_id,title\nn,Pearl\n", ["--encoder", "other"], "another encoder than the bundle's, letters"),
        ("item_id,title\nB001,Pearl\n", [], "in the catalogue with another title, 'Soap 0'"),
        ("item_id,title\nn,Pearl\nn,Amber\n", [], "duplicate item id in two rows that differ"),
        ("item_id,name\nn,Pearl\n", [], "a column is missing"),
        ("item_id,title\nn,\n", [], "no new item with a title"),
    ],
)
def test_a_wrong_table_is_told_in_one_line_and_nothing_is_written(
    folder, tmp_path, capsys, rows, words, said, recwarn
):
    (tmp_path / "new.csv").write_text(rows)
    out = tmp_path / "grown"
    assert main(["add-items", str(folder), str(tmp_path / "new.csv"), "--out", str(out), *words]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not out.exists()
