"""The experiment of the budget, run tiny over a store of stub answers."""

import json
import random
from pathlib import Path

import pytest
from scripts import EXPERIMENTS, fails, run
from shops import write_shop
from studies import kept

from experiments.study.results import Study
from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys

SHORT = "--trainer.max_epochs 1 --trainer.accelerator cpu"


@pytest.fixture
def shop(stubs, tmp_path, monkeypatch):
    """A bare run and a store with views of every session."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(4)
    write_shop(tmp_path, item=lambda session, click: draw.randrange(9))
    data = ["--data", "SessionDataModule", "--data.data_dir", str(tmp_path), "--data.split.by", "column"]
    data += ["--data.cache_dir", str(tmp_path / "cache")]
    backbone = ["--model.backbone", "SRGNN"]
    words = [
        "fit",
        "--config",
        str(EXPERIMENTS / "base.yaml"),
        "--model",
        "llm4sbr.SBRModule",
        *data,
        *backbone,
    ]
    assert main([*words, *SHORT.split(), "--trainer.enable_progress_bar", "false"]) == 0
    source = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    with ViewStore(tmp_path / "views") as store:
        encoder, engine = stubs.StubEncoder(dim=384), stubs.StubEngine()
        infer_views(source, store, encoder=encoder, engine=engine, progress=False)
    return tmp_path


COMMAND = [
    "budget", "--run", "runs/llm4sbr/version_0", "--store", "views", "--out", "results", "--seeds", "[0]",
    "--settings", "{epochs: 1, trainer.accelerator: cpu}",
]  # fmt: skip


def test_recall_against_the_share_of_sessions_asked(shop):
    """Seen to fail with every variant reading all views, with lifts turned round, with stale keys used."""
    words = ["--shares", "[0, 0.3, 1]", "--choose", "[entropy, random]", "--json", "budget.json"]
    run(shop, *COMMAND, *words)
    runs = kept(Path("results.parquet"))
    assert set(runs) == {f"srgnn-{v}-0" for v in ("entropy-0", "entropy-30", "entropy-100", "random-30")}
    keys = {path.stem: read_keys(path) for path in Path("runs/results/sessions").glob("*.keys")}
    assert not keys["entropy-0"]
    assert set(keys["entropy-30"]) < set(keys["entropy-100"])
    assert len(keys["entropy-30"]) == len(keys["random-30"]) == round(0.3 * len(keys["entropy-100"]))
    assert set(keys["entropy-30"]) != set(keys["random-30"])
    rows = {row["what"]: row for row in json.loads(Path("budget.json").read_text())["rows"]}
    result = runs["srgnn-entropy-30-0"]
    assert "--views.only runs/results/sessions/entropy-30.keys" in result["command"]
    value = rows["entropy-30 %: recall@20"]["value"]
    assert value == pytest.approx(100 * result["test"]["test/recall@20"], rel=1e-3)
    told = rows["entropy-30 %: mrr@20"]["note"]
    assert f"{len(keys['entropy-30'])} of {len(keys['entropy-100'])} distinct sessions chosen" in told
    assert "views of 100.0% of train" in rows["entropy-100 %: mrr@20"]["note"]
    assert "views of 0.0% of train" in rows["entropy-0 %: mrr@20"]["note"]
    # Half as good again as titles: the lift must say so, and nothing that is there is trained anew.
    titles = runs["srgnn-entropy-0-0"]["test"]
    runs["srgnn-entropy-30-0"]["test"] = {name: 1.5 * value for name, value in titles.items()}
    Path("results.parquet").unlink()
    Study("results").extend(runs.values())
    assert run(shop, *COMMAND, *words).count("is there already") == 4
    rows = {row["what"]: row for row in json.loads(Path("budget.json").read_text())["rows"]}
    assert rows["entropy-30 %: lift of mrr@20 over titles"]["value"] == pytest.approx(0.5, abs=1e-3)
    assert "entropy-0 %: lift of mrr@20 over titles" not in rows

    (shop / "runs/results/sessions/entropy-30.keys").write_text("00" * 16 + "\n")
    assert "come from another bare run" in fails(shop, *COMMAND, *words)
