"""The experiment scripts, run tiny, so that none rots."""

import doctest
import json

import numpy as np
import pytest
from scripts import load, run
from shops import write_shop


def test_compare_resumes_and_the_table_reads_its_results(tmp_path):
    write_shop(tmp_path, sessions=30)
    words = ["--data", "data.yaml", "--variants", "bare", "--seeds", "0", "1", "--out", "results", "--quiet"]
    words += ["--options", "--trainer.max_epochs 1 --trainer.accelerator cpu"]
    run(tmp_path, "compare.py", *words)
    result = json.loads((tmp_path / "results" / "srgnn-bare-0.json").read_text())
    assert result["command"].startswith("llm4sbr fit")
    ranks, sessions = load("ranks").unpack(result)
    assert len(ranks) == len(sessions) == 12
    assert (
        abs((ranks <= 5).mean() - result["test"]["test/recall@5"]) < 1e-4
    )  # the same test, example by example
    assert "is there already" in run(tmp_path, "compare.py", *words)

    # A wrapped run that ranks every target first: the lift and its interval must say so.
    wrapped = {**result, "variant": "titles", **load("ranks").pack(np.ones(12), sessions)}
    wrapped["test"] = dict.fromkeys(result["test"], 1.0)
    (tmp_path / "results" / "srgnn-titles-0.json").write_text(json.dumps(wrapped))
    table = run(tmp_path, "table.py", "results", "--json", "table.json")
    assert "| srgnn | bare | 2 |" in table
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    lift = next(row for row in rows if row["what"] == "srgnn titles: lift of mrr@20 over bare")
    bare = result["test"]["test/mrr@20"]
    assert abs(lift["value"] - (1 / bare - 1)) < 1e-3
    low, high = json.loads(lift["note"].split("interval ")[1])
    assert low <= lift["value"] <= high
    assert lift["met"] == (low > 0)
    assert "seeds [0]" in lift["note"]

    # Against another model, whose one run serves every seed.
    counted = {**wrapped, "backbone": "rules", "variant": "bare"}
    (tmp_path / "results" / "rules-bare-0.json").write_text(json.dumps(counted))
    run(tmp_path, "table.py", "results", "--json", "table.json", "--against", "rules")
    rows = {row["what"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert rows["srgnn titles: lift of mrr@20 over rules bare"]["value"] == 0
    lost = rows["srgnn bare: lift of mrr@20 over rules bare"]
    assert "seeds [0, 1]" in lost["note"]
    both = [json.loads((tmp_path / "results" / f"srgnn-bare-{seed}.json").read_text()) for seed in (0, 1)]
    mean = sum(one["test"]["test/mrr@20"] for one in both) / 2
    assert abs(lost["value"] - (mean - 1)) < 1e-3
    assert not any(what.startswith("rules bare: lift") for what in rows)


def test_ranks_are_kept_as_they_are_down_to_the_hundredth():
    """Seen to fail with halves dropped, and with sessions that are told apart by number alone."""
    ranks = load("ranks")
    assert doctest.testmod(ranks).failed == 0
    rank = np.concatenate((np.arange(1, 100.5, 0.5), [100.5, 101, 12101.0]))
    session = np.sort(np.random.default_rng(0).integers(5, 40, len(rank)))
    kept, number = ranks.unpack(ranks.pack(rank, session))
    assert (kept == np.where(rank <= 100, rank, np.inf)).all()
    assert (number == np.unique(session, return_inverse=True)[1]).all()
    assert ranks.unpack({"test": {}}) is None


def test_an_interval_with_seeds_drawn_has_what_trainings_differ_by():
    """Sessions that are all alike say nothing of it, seeds that are all alike add nothing. Seen to fail with
    seeds that are never drawn."""
    table, session = load("table"), np.arange(40) // 2
    by_seed = np.repeat([[0.0], [0.3], [0.6]], 40, axis=1)
    assert table.interval(by_seed, session) == pytest.approx((0.3, 0.3))
    low, high = table.interval(by_seed, session, seeds=True)
    assert low == pytest.approx(0, abs=0.01)
    assert high == pytest.approx(0.6, abs=0.01)

    alike = np.tile(np.random.default_rng(0).random(40), (3, 1))
    assert table.interval(alike, session, seeds=True) == pytest.approx(table.interval(alike, session))
    assert table.interval(alike[0], session) == pytest.approx(table.interval(alike, session))
