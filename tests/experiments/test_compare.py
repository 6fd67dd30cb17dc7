"""Fits over seeds and their table, run tiny, so that none rots."""

import json

import numpy as np
import pytest
from scripts import fails, run
from shops import write_shop
from studies import kept

from experiments.study import names
from experiments.study.intervals import interval
from experiments.study.results import Study


def test_compare_resumes_and_the_table_reads_its_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path, sessions=30)
    words = [
        "compare",
        "--data",
        "data.yaml",
        "--variants",
        "[bare]",
        "--seeds",
        "[0, 1]",
        "--out",
        "results",
    ]
    words += ["--settings", "{epochs: 1, trainer.accelerator: cpu}"]
    run(tmp_path, *words)
    result = kept(tmp_path / "results.parquet")["srgnn-bare-0"]
    assert result["command"].startswith("llm4sbr fit")
    ranks = result["ranks"]
    assert len(ranks) == len(result["session"]) == 12
    assert (ranks <= 5).mean() == pytest.approx(
        result["test"]["test/recall@5"], abs=1e-4
    )  # example by example
    assert run(tmp_path, *words).count("is there already") == 2
    assert "no such variant" in fails(tmp_path, *words, "--variants", "[title]")

    # A wrapped run that ranks every target first: the lift and its interval must say so.
    wrapped = {
        **result,
        "variant": "titles",
        "ranks": np.ones(12),
        "test": dict.fromkeys(result["test"], 1.0),
    }
    Study("results").add(wrapped)
    table = run(tmp_path, "table", "--studies", "[results]", "--json", "table.json")
    assert "| SRGNN | bare | 2 |" in table
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    lift = next(row for row in rows if row["what"] == "SRGNN titles: lift of mrr@20 over bare")
    bare = result["test"]["test/mrr@20"]
    assert lift["value"] == pytest.approx(1 / bare - 1, abs=1e-3)
    low, high = json.loads(lift["note"].split("interval ")[1])
    assert low <= lift["value"] <= high
    assert lift["met"] == (low > 0)
    assert "seeds [0]" in lift["note"]

    # Against another model, whose one run serves every seed.
    Study("results").add({**wrapped, "backbone": "rules", "variant": "bare"})
    run(tmp_path, "table", "--studies", "[results]", "--json", "table.json", "--against", "rules")
    rows = {row["what"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert rows["SRGNN titles: lift of mrr@20 over rules bare"]["value"] == 0
    lost = rows["SRGNN bare: lift of mrr@20 over rules bare"]
    assert "seeds [0, 1]" in lost["note"]
    both = [kept(tmp_path / "results.parquet")[f"srgnn-bare-{seed}"] for seed in (0, 1)]
    mean = sum(one["test"]["test/mrr@20"] for one in both) / 2
    assert lost["value"] == pytest.approx(mean - 1, abs=1e-3)
    assert not any(what.startswith("rules bare: lift") for what in rows)


def test_an_interval_with_seeds_drawn_has_what_trainings_differ_by():
    """Sessions that are all alike say nothing of it, seeds that are all alike add nothing. Seen to fail with
    seeds that are never drawn."""
    session = np.arange(40) // 2
    by_seed = np.repeat([[0.0], [0.3], [0.6]], 40, axis=1)
    assert interval(by_seed, session) == pytest.approx((0.3, 0.3))
    low, high = interval(by_seed, session, seeds=True)
    assert low == pytest.approx(0, abs=0.01)
    assert high == pytest.approx(0.6, abs=0.01)

    alike = np.tile(np.random.default_rng(0).random(40), (3, 1))
    assert interval(alike, session, seeds=True) == pytest.approx(interval(alike, session))
    assert interval(alike[0], session) == pytest.approx(interval(alike, session))


def test_every_registered_backbone_has_a_name_in_tables():
    """A sixteenth is one registration: no list here knows them. Seen to fail with a docstring without one."""
    titles = {name: names.title(name) for name in names.backbones()}
    assert len(set(titles.values())) == len(titles) >= 15
    assert (titles["NISERPlus"], titles["AttenMixer"], titles["SRGNN"]) == ("NISER+", "Atten-Mixer", "SR-GNN")
    assert all(
        title.isupper() or name != title or name in ("GRU4Rec", "SASRec") for name, title in titles.items()
    )
