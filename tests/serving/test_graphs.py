"""Graphs of bundles: the scores of `torch.export` and ONNX Runtime, and what cannot be one."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from bundles import SESSIONS, SPEC, bundle, raw, trained

from llm4sbr.cli.main import main
from llm4sbr.contracts.errors import InputError
from llm4sbr.serving import Recommender
from llm4sbr.serving.graphs import check_graph, export_program, save_onnx


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("wrapped"), trained("SRGNN"), spec=SPEC)


@pytest.fixture(scope="module")
def exported(wrapped):
    return export_program(Recommender.load(wrapped))


def test_onnx_runtime_gives_the_scores_of_the_bundle(wrapped, tmp_path, capsys):
    """Of any number of sessions and clicks, with known views and without."""
    assert main(["convert", str(wrapped), "--out", str(tmp_path / "graph")]) == 0
    assert "any number of sessions of any number of clicks" in capsys.readouterr().out
    about = json.loads((tmp_path / "graph" / "interface.json").read_text())
    assert about["inputs"] == ["item_ids", "views", "view_mask"]
    assert about["length"] is None
    assert 0 < about["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "graph" / "model.onnx")
    recommender = Recommender.load(wrapped)
    assert about["bundle"] == recommender.manifest.sha256
    for some in (SESSIONS, SESSIONS[1:2], 2 * SESSIONS):
        batch, states = recommender.batch(some)
        assert "known" in states or some == SESSIONS[1:2]
        views = (batch.views, batch.view_mask)
        if batch.views is None:
            views = (torch.zeros(1, 2, recommender.model.text_dim), torch.zeros(1, 2, dtype=torch.bool))
        names = dict(zip(about["inputs"], (batch.item_ids, *views), strict=True))
        found = session.run(None, {name: one.numpy() for name, one in names.items()})[0]
        np.testing.assert_allclose(found, recommender.scores(raw(some)), rtol=1e-4, atol=1e-4)


def test_a_recurrent_layer_fixes_the_number_of_clicks(tmp_path, capsys):
    made = bundle(tmp_path / "bundle", trained("GRU4Rec", wrapped=False), max_length=7)
    assert main(["convert", str(made), "--out", str(tmp_path / "graph"), "--to", "torch"]) == 0
    assert "of 7 clicks, padded with 0" in capsys.readouterr().out
    program = torch.export.load(tmp_path / "graph" / "model.pt2").module()
    item_ids = torch.tensor([session + [0] * (7 - len(session)) for session in SESSIONS])
    torch.testing.assert_close(program(item_ids), Recommender.load(made).scores(raw(SESSIONS)))


def test_a_graph_that_scores_differently_is_not_written(wrapped, exported):
    recommender = Recommender.load(wrapped)
    with pytest.raises(InputError, match="the graph would score differently"):
        check_graph(exported, recommender, lambda *given: exported.graph(*given) + 1e-2)
    assert check_graph(exported, recommender, exported.program.module()) < 1e-5


def test_what_has_no_graph_is_refused_with_the_reason(wrapped, exported, tmp_path, capsys, monkeypatch):
    made = bundle(tmp_path / "bundle", trained("LESSR", wrapped=False))
    assert main(["convert", str(made), "--out", str(tmp_path / "graph")]) == 1
    said = capsys.readouterr().err
    assert "LESSR cannot be exported as a graph: sizes are computed from the clicks in lessr_graph.py" in said
    assert not (tmp_path / "graph").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="onnxscript is not installed"):
        save_onnx(exported, Recommender.load(wrapped), tmp_path / "model.onnx")
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "notes").write_text("mine")
    assert main(["convert", str(wrapped), "--out", str(tmp_path / "graph")]) == 1
    assert "this folder is not empty" in capsys.readouterr().err
