"""Trained models with sequential rules beside them, run as a person runs it, tiny."""

import json
import shutil

import pytest
from scripts import load, run
from shops import write_shop


def test_validation_chooses_the_weight_and_the_test_is_that_models(tmp_path):
    """Seen to fail with the worst weight chosen, and with the test run without the rules."""
    write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    words = [
        "--data",
        "data.yaml",
        "--variants",
        "bare",
        "no-views",
        "--seeds",
        "0",
        "--quiet",
        "--out",
        "plain",
    ]
    words += ["--options", "--trainer.max_epochs 1 --trainer.accelerator cpu"]
    run(tmp_path, "compare.py", *words)
    run(tmp_path, "with_rules.py", "plain", "--out", "rules", "--weights", "0", "1", "0.01")
    run(tmp_path, "with_rules.py", "plain", "--out", "none", "--weights", "0")
    for name in ("srgnn-bare-0", "srgnn-no-views-0"):
        plain, ruled, none = (
            json.loads((tmp_path / folder / f"{name}.json").read_text())
            for folder in ("plain", "rules", "none")
        )
        assert ruled["weights"][0]["ndcg@20"] == pytest.approx(plain["best_validation"], abs=1e-5)
        assert none["test"] == pytest.approx(plain["test"], abs=1e-5)
        assert ruled["rules"] == 1.0  # the ring of beads is a rule; an epoch has hardly learned it
        assert ruled["test"]["test/mrr@20"] > plain["test"]["test/mrr@20"]
        found = load("table").gains(load("ranks").unpack(ruled)[0], "mrr@20")
        assert found.mean() == pytest.approx(ruled["test"]["test/mrr@20"], abs=1e-5)
        assert ruled["backbone"] == "srgnn+rules"
    told = run(tmp_path, "table.py", "plain", "rules", "--over-plain", "--json", "over.json")
    assert "| srgnn+rules | no-views | 1 |" in told
    over = {
        (row["backbone"], row["variant"]): row
        for row in json.loads((tmp_path / "over.json").read_text())["details"]
    }
    assert over["srgnn", "bare"]["lift"] == {}
    for variant in ("bare", "no-views"):  # both are over the bare one without
        value = over["srgnn+rules", variant]["recall@20"]["mean"]
        lift = value / over["srgnn", "bare"]["recall@20"]["mean"] - 1
        assert over["srgnn+rules", variant]["lift"]["recall@20"]["relative"] == pytest.approx(lift, abs=1e-3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rules").iterdir()}
    shutil.rmtree(tmp_path / "runs")
    run(tmp_path, "with_rules.py", "plain", "--out", "rules")  # what is there needs no checkpoint
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "rules").iterdir()}
    run(tmp_path, "with_rules.py", "plain", "--out", "late")
    assert not (tmp_path / "late").exists()
