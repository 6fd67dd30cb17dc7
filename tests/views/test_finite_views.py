"""Views, titles and embeddings that are not finite are refused where they are made and read."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_encoder
import torch
from safetensors.torch import load_file, save_file

from llm4sbr import InputError
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.store import StoreError, ViewStore, title_table
from llm4sbr.views.store import store as store_module
from llm4sbr.views.store.reading import LocalisedRows
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.tables import DenseViews, LocalisedViews, TitleTable

ENGINE = EngineIdentity(ModelIdentity("m", "m"), {"strategy": "greedy"}, "")
ANSWER = AnswerSpec("long_term", "l {items}", ENGINE, 20, 100, 1)
VIEW = ViewSpec("llm", ("long_term",), (ANSWER,), ModelIdentity("e", "e"), "cat", 2)
KEYS = [b"a" * 16, b"b" * 16]
BAD = [float("nan"), float("inf"), float("-inf")]
TITLED = torch.ones(3, dtype=torch.bool)


def views(value, r):
    ids = np.ones((2, 1, r), np.int32)
    weights, vectors = np.ones((2, 1, r), np.float16), np.ones((2, 1, 4), np.float32)
    weights[1], vectors[1, 0, 2] = value, value
    known = np.ones((2, 1), bool)
    return LocalisedRows(ids, weights, known, None if r else vectors)


@pytest.mark.parametrize("r", [0, 2])
@pytest.mark.parametrize("value", BAD)
def test_a_store_takes_and_gives_no_such_view(tmp_path, monkeypatch, value, r):
    """Seen to fail without the check in `add_localised`, and without that in `lookup_localised`."""
    spec = replace(VIEW, r=r)
    with ViewStore(tmp_path) as store:
        with pytest.raises(InputError, match="of the views are not finite"):
            store.add_localised(spec, KEYS, views(value, r))
        monkeypatch.setattr(store_module, "require_finite", lambda *given, **named: None)
        store.add_localised(spec, KEYS, views(value, r))  # as another program would write it
        with pytest.raises(StoreError, match=f"session {KEYS[1].hex()}.*a view is not finite"):
            store.lookup_localised(spec, KEYS, dim=4)
        assert store.lookup_localised(spec, KEYS[:1], dim=4).mask.all()


@pytest.mark.parametrize("value", BAD)
def test_a_table_of_titles_takes_and_gives_no_such_embedding(tmp_path, monkeypatch, value):
    titles = torch.ones(3, 4)
    titles[2, 1] = value
    with ViewStore(tmp_path) as store:
        with pytest.raises(InputError, match="1 of 12 numbers of the title embeddings"):
            store.add_titles(VIEW, titles, TITLED)
        with monkeypatch.context() as patch:
            patch.setattr(title_table, "require_finite", lambda *given, **named: None)
            store.add_titles(VIEW, titles, TITLED)
        with pytest.raises(InputError, match=r"titles-.*1 of 12 numbers"):
            store.titles(VIEW)


@pytest.mark.parametrize("value", BAD)
def test_view_tables_take_no_such_number(value):
    titles = torch.ones(3, 4)
    titles[0, 0] = value
    with pytest.raises(InputError, match="title embeddings"):
        TitleTable(titles, TITLED)
    table, known = TitleTable(torch.ones(3, 4), TITLED), torch.ones(2, 1, dtype=torch.bool)
    with pytest.raises(InputError, match="weights"):
        LocalisedViews(table, ["long_term"], torch.ones(2, 1, 2).int(), torch.full((2, 1, 2), value), known)
    with pytest.raises(InputError, match="the views"):
        DenseViews(table, ["long_term"], torch.full((2, 1, 4), value), known)


def test_an_encoder_with_broken_weights_is_named_with_the_text(tmp_path):
    folder = tiny_encoder.make(tmp_path / "encoder")
    assert SentenceEncoder(str(folder), device="cpu").encode(["rose soap"]).isfinite().all()
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.1.output.dense.weight"][0, 0] = torch.nan
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"encoder: .*not finite \(got 'rose soap'\)"):
        SentenceEncoder(str(folder), device="cpu").encode(["", "rose soap"])
