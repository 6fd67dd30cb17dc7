"""The baselines that count, run as a person runs them, tiny, and the table that reads what they leave."""

import numpy as np
import pytest
from scripts import run
from shops import write_shop
from studies import fit, kept

from experiments.study.results import Study


def test_settings_are_chosen_on_validation_and_the_table_reads_the_result(tmp_path):
    shop = write_shop(tmp_path, sessions=60, clicks=lambda session: 3 + session % 3)
    words = ["baselines", "--data", str(shop / "data.yaml"), "--names", "[pop, sknn, sequential-rules]"]
    words += ["--out", "results"]
    run(tmp_path, *words)
    runs = kept(tmp_path / "results.parquet")
    result = runs["sknn-bare-0"]
    trials = [run for run in runs.values() if run["backbone"] == "sknn" and "trial" in run]
    assert [one["trial"] for one in trials] == list(range(9))
    assert not any(
        one["settings"] == other["settings"] for one in trials for other in trials if one is not other
    )
    reached = [one["best_validation"] for one in trials]
    assert reached == [one["history"][0]["val/mrr@20"] for one in trials]
    assert next(one for one in trials if one["settings"] == result["settings"])["best_validation"] == max(
        reached
    )
    assert result["best_validation"] == max(reached) > min(reached)
    ranks, sessions = result["ranks"], result["session"]
    assert len(ranks) == len(sessions) > 12
    assert len(set(sessions)) < len(sessions)
    assert (ranks <= 5).mean() == pytest.approx(result["test"]["test/recall@5"], abs=1e-4)
    assert np.where(ranks <= 20, 1 / ranks, 0).mean() == pytest.approx(
        result["test"]["test/mrr@20"], abs=1e-4
    )

    table = run(tmp_path, "table", "--studies", "[results]", "--json", "table.json")
    assert "| sknn | bare | 1 |" in table
    assert "| pop | bare | 1 |" in table
    assert runs["sequential-rules-bare-0"]["test"]["test/recall@5"] == 1  # after item k comes k + 1
    assert run(tmp_path, *words).count("is there already") == 3


def test_a_stopped_search_goes_on(tmp_path):
    """What was tried is not tried again. Seen to fail with trials that are kept at the end alone."""
    shop = write_shop(tmp_path, sessions=60, clicks=lambda session: 3 + session % 3)
    tried = {"backbone": "pop", "trial": 0, "settings": {"remind": False}, "history": [{"val/mrr@20": 0.9}]}
    Study(tmp_path / "results", runs=tmp_path / "runs").add(fit(0, **tried) | {"best_validation": 0.9})
    told = run(
        tmp_path, "baselines", "--data", str(shop / "data.yaml"), "--names", "[pop]", "--out", "results"
    )
    assert 'pop {"remind": false} {"val' not in told
    runs = kept(tmp_path / "results.parquet")
    assert set(runs) == {"pop-bare-trial-00", "pop-bare-trial-01", "pop-bare-0"}
    assert runs["pop-bare-trial-01"]["settings"] == {"remind": True}
    assert runs["pop-bare-0"]["settings"] == {"remind": False}
