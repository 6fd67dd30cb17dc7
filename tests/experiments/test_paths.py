"""Known, predicted and absent views of one model, run as a person runs it, tiny."""

import json

import numpy as np
import pytest
import torch
from letters import Wide, title_views
from scripts import run
from shops import BEADS, write_shop
from studies import kept

from experiments.study.path_table import PATHS, rows
from experiments.study.paths import PathRecorder, views_of_paths
from llm4sbr import LLM4SBRWrapper
from llm4sbr.backbones import GRU4Rec
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.testing import make_batch


def test_every_path_of_a_trained_model_is_tested_once(tmp_path):
    shop = write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    data = SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(shop / "cache"))
    data.prepare_data()
    title_views(data, shop / "views", Wide())
    words = ["paths", "--data", "data.yaml", "--store", "views", "--seeds", "[0]", "--out", "paths"]
    options = "epochs: 1, trainer.accelerator: cpu, model.backbone.embedding_dim: 8"
    words += ["--settings", f"{{{options}}}", "--json", "paths.json"]
    assert "kept of the lift" in " ".join(run(tmp_path, *words).split())
    found = kept(tmp_path / "paths.parquet")
    assert set(found) == {
        "srgnn-bare-0", "srgnn-titles-without-a-predictor-0", "srgnn-titles-trained-0",
        *(f"srgnn-titles-{path}-0" for path in PATHS),
    }  # fmt: skip
    assert "test" not in found["srgnn-titles-trained-0"]
    ranks = {path: found[f"srgnn-titles-{path}-0"]["ranks"] for path in PATHS}
    assert len(ranks["known"]) == len(data.examples("test"))
    written = {one["what"]: one for one in json.loads((tmp_path / "paths.json").read_text())["rows"]}
    assert written["recall@5: bare"]["value"] == pytest.approx(
        100 * found["srgnn-bare-0"]["test"]["test/recall@5"], abs=0.01
    )
    before = (tmp_path / "paths.parquet").stat().st_mtime_ns
    assert run(tmp_path, *words).count("is there already") == 3
    assert before == (tmp_path / "paths.parquet").stat().st_mtime_ns


def test_the_paths_of_a_batch():
    """Seen to fail with the known views of a batch left in the other paths."""
    torch.manual_seed(0)
    model = LLM4SBRWrapper(GRU4Rec(len(BEADS), 8), text_dim=6, view_predictor=ViewPredictor(4)).eval()
    model.view_predictor.learned.fill_(True)
    batch = make_batch([[1, 2], [3]], [3, 4])._replace(
        views=torch.randn(2, 2, 6), view_mask=torch.ones(2, 2, dtype=torch.bool)
    )
    found = views_of_paths(model, batch)
    bare = batch._replace(views=None, view_mask=None)
    for path, by_hand in {
        "known": model(batch),
        "predicted": model(bare),
        "absent": model.score_enhanced(model.enhance(bare, predict=False)),
    }.items():
        torch.testing.assert_close(model.score_enhanced(found[path]), by_hand)
    recorder = PathRecorder()
    recorder.on_test_batch_end(None, model, None, batch)
    ranks = target_ranks(model(bare), batch.target)
    assert np.concatenate(recorder.ranks["predicted"]).tolist() == ranks.tolist()
    cosine = torch.nn.functional.cosine_similarity(found["predicted"].prediction.views, batch.views, dim=-1)
    assert [*recorder.nearness().values()] == pytest.approx(cosine.mean(0).tolist(), abs=1e-4)


@pytest.mark.parametrize(("predicted", "met"), [(2.0, True), (20.0, False)])
def test_what_is_kept_is_a_share_of_the_lift_of_known_views(predicted, met):
    """Ranks of 40 examples; bare hits none, known all. Seen to fail with the lift over another row."""
    half = np.where(np.arange(40) % 2 == 0, 2.0, predicted)
    ranks = {"bare": np.full(40, 30.0), "known": np.full(40, 2.0), "predicted": half}
    ranks |= {"absent": np.full(40, 30.0), "without a predictor": np.full(40, 2.0)}
    runs = [
        {
            "variant": "bare" if name == "bare" else "llm", "what": None if name == "bare" else name,
            "seed": seed, "ranks": one, "session": np.arange(40) // 4, "cosine/1": 0.7,
        }
        for name, one in ranks.items()
        for seed in (0, 1)
    ]  # fmt: skip
    table = {one["what"]: one for one in rows([*runs, {**runs[0], "seed": 2}], "llm")}
    kept_of = table["recall@5: kept of the lift over bare"]
    assert (kept_of["value"], kept_of["target"], kept_of["met"]) == (1.0 if met else 0.5, 0.9, met)
    assert table["recall@5: known"]["value"] == 100
    assert table["cosine of predicted and known views, view 1"]["value"] == pytest.approx(0.7)
    assert rows(runs[:1], "llm") == []
