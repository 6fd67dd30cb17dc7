"""Trained models with sequential rules beside them, run as a person runs it, tiny."""

import json
import shutil

import pytest
from scripts import run
from shops import write_shop
from studies import kept

from experiments.study.intervals import gains
from experiments.study.lifts import model


def test_validation_chooses_the_weight_and_the_test_is_that_models(tmp_path):
    """Seen to fail with the worst weight chosen, and with the test run without the rules."""
    write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    words = ["--data", "data.yaml", "--variants", "[bare, no-views]", "--seeds", "[0]", "--out", "plain"]
    run(tmp_path, "compare", *words, "--settings", "{epochs: 1, trainer.accelerator: cpu}")
    run(tmp_path, "rules", "--study", "plain", "--out", "rules", "--weights", "[0, 1, 0.01]")
    run(tmp_path, "rules", "--study", "plain", "--out", "none", "--weights", "[0]")
    plain, ruled, none = (kept(tmp_path / f"{name}.parquet") for name in ("plain", "rules", "none"))
    assert len(ruled) == 2 * 4  # three trials and a test
    for name in ("srgnn-bare-0", "srgnn-no-views-0"):
        without = ruled[name.replace("-0", "-trial-00")]
        assert without["settings"]["rules"] == 0
        assert without["best_validation"] == pytest.approx(plain[name]["best_validation"], abs=1e-5)
        assert none[name]["test"] == pytest.approx(plain[name]["test"], abs=1e-5)
        assert ruled[name]["settings"]["rules"] == 1.0  # the ring is a rule; an epoch has hardly learned it
        assert ruled[name]["test"]["test/mrr@20"] > plain[name]["test"]["test/mrr@20"]
        found = gains(ruled[name]["ranks"], "mrr@20")
        assert found.mean() == pytest.approx(ruled[name]["test"]["test/mrr@20"], abs=1e-5)
        assert model(ruled[name]) == "SRGNN+rules"
        assert ruled[name]["trained_by"] == plain[name]["command"]
    told = run(tmp_path, "table", "--studies", "[plain, rules]", "--over_plain", "--json", "over.json")
    assert "| SRGNN+rules | no-views | 1 |" in told
    details = json.loads((tmp_path / "over.json").read_text())["details"]
    over = {(row["backbone"], row["variant"]): row for row in details}
    assert over["SRGNN", "bare"]["lift"] == {}
    for variant in ("bare", "no-views"):  # both are over the bare one without
        value = over["SRGNN+rules", variant]["recall@20"]["mean"]
        lift = value / over["SRGNN", "bare"]["recall@20"]["mean"] - 1
        assert over["SRGNN+rules", variant]["lift"]["recall@20"]["relative"] == pytest.approx(lift, abs=1e-3)
    before = (tmp_path / "rules.parquet").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "runs")
    assert run(tmp_path, "rules", "--study", "plain", "--out", "rules").count("is there already") == 2
    assert before == (tmp_path / "rules.parquet").stat().st_mtime_ns
    run(tmp_path, "rules", "--study", "plain", "--out", "late")
    assert not (tmp_path / "late.parquet").exists()
