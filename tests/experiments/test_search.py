"""The search, run as a person runs it, tiny: in pieces, without reading the test split while it tunes."""

import json
import os
import time

import pytest
from scripts import fails, run, start
from shops import write_shop
from studies import kept

from experiments.study import settings, space
from experiments.study.results import Study
from experiments.study.settings import compared
from llm4sbr.contracts.errors import InputError

CPU = ["--settings", "{trainer.accelerator: cpu}"]


def test_a_draw_is_the_trials_alone():
    found = {"common": {"a": [1, 2, 3], "score_scale": [None, 5.0]}, "wrapped": {"b": [4, 5]}}
    assert space.draw(found, 0, wrapped=True) == {"a": 1, "score_scale": None, "b": 4}
    drawn = [space.draw(found, n, wrapped=True) for n in range(1, 40)]
    assert {one["a"] for one in drawn} == {1, 2, 3}
    assert {one["b"] for one in drawn} == {4, 5}


def test_a_start_sets_nothing_that_is_not_searched():
    known = {"common": {"a": [1, 2]}, "wrapped": {"b": [3]}, "starts": [{"a": 7}]}
    assert space.draw(known, 1, wrapped=True) == {"a": 7, "b": 3}
    with pytest.raises(InputError, match="search space"):
        space.read("{common: {a: [1, 2]}, starts: [{c: 1}]}")


def test_a_misspelt_setting_is_refused():
    with pytest.raises(InputError, match="no such setting"):
        settings.words({"item_title": 100}, wrapped=True)


def test_the_search_runs_in_pieces_and_tests_what_validation_chose(tmp_path, monkeypatch):
    """Seen to fail with the worst trial chosen, and with trials that test."""
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path, sessions=30)
    text = "common:\n  lr: [1.0e-9, 0.05]\n  score_scale: [null, 8.0]\nwrapped:\n  tau: [0.1, 0.5]\n"
    (tmp_path / "space.yaml").write_text(text)
    words = [
        "search",
        "--data",
        "data.yaml",
        "--variants",
        "[bare, no-views]",
        "--seeds",
        "[0]",
        "--epochs",
        "1",
    ]
    words += ["--out", "results.parquet", *CPU, "--trials"]
    given = ["--space", "space.yaml"]
    assert "8 of 8 fits are left" in run(tmp_path, *words, "3", *given, "--minutes", "0")
    assert "all 8 fits are done" in run(tmp_path, *words, "3", *given)
    runs = kept(tmp_path / "results.parquet")
    trials = {name: one for name, one in runs.items() if "trial" in one}
    assert len(trials) == 6
    assert not any("test" in one or "ranks" in one for one in trials.values())
    assert {one["seed"] for one in trials.values()} == {1000}
    assert all("val/ndcg@20" in epoch for one in trials.values() for epoch in one["history"])
    for variant in ("bare", "no-views"):
        pairs = [trials[f"srgnn-{variant}-trial-{n:02d}"] for n in range(3)]
        best = max(pairs, key=lambda one: (one["best_validation"], -one["trial"]))
        tested = runs[f"srgnn-{variant}-0"]
        assert tested["settings"] == best["settings"]
        assert f"--model.optimizer.lr {best['settings']['lr']}" in tested["command"]
        assert "test/recall@20" in tested["test"]
    for n in range(3):  # bare and wrapped have the same draw of what both have
        bare, wrapped = (
            trials[f"srgnn-{variant}-trial-{n:02d}"]["settings"] for variant in ("bare", "no-views")
        )
        assert compared(bare).items() <= compared(wrapped).items()
        assert set(wrapped) - set(bare) == {"tau"}

    changed = os.stat("results.parquet").st_mtime_ns
    run(tmp_path, *words, "3")  # the space it was begun with
    assert changed == os.stat("results.parquet").st_mtime_ns
    assert "| SRGNN | no-views | 1 |" in run(tmp_path, "table", "--studies", "[results.parquet]")
    told = run(
        tmp_path, "summary", "--studies", "[results.parquet]", "--json", "lifts.json", "--picture", "pictures"
    )
    assert "| *average* | 1 | no-views |" in told
    assert "<svg" in (tmp_path / "pictures" / "results.svg").read_text()

    # Further trials join; another space, or other epochs, would mix two searches in one table.
    (tmp_path / "space.yaml").write_text(text.replace("0.05", "0.04"))
    assert "has other settings" in fails(tmp_path, *words, "3", *given)
    other = ["2" if word == "1" else word for word in words]
    assert "has other settings" in fails(tmp_path, *other, "3")


def test_another_best_trial_is_not_mixed_with_what_was_tested(tmp_path, monkeypatch):
    """And the earlier of two equals is the best. Seen to fail with the later one."""
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path, sessions=30)
    (tmp_path / "space.yaml").write_text("common: {lr: [0.05, 0.01]}")
    study = Study("results")
    study.begin("common: {lr: [0.05, 0.01]}\nstarts: [{lr: 0.01}, {lr: 0.02}]")
    fit = {"backbone": "SRGNN", "variant": "bare"}
    for trial, (rate, reached) in enumerate(((0.05, 0.1), (0.01, 0.3), (0.02, 0.3))):
        found = {"settings": {"lr": rate, "epochs": 1}, "best_validation": reached}
        study.add({**fit, "seed": 1000, "trial": trial, **found})
    words = ["search", "--data", "data.yaml", "--variants", "[bare]", "--seeds", "[0]", "--epochs", "1"]
    words += ["--out", "results", *CPU, "--trials"]
    assert "all 4 fits are done" in run(tmp_path, *words, "3")
    assert kept(study.path)["srgnn-bare-0"]["settings"]["lr"] == 0.01
    assert "best trial changed" in fails(tmp_path, *words, "1")  # the first settings, untuned


def test_one_trial_leaves_nothing_to_choose(tmp_path):
    """Seen to fail with a trial run all the same."""
    write_shop(tmp_path, sessions=30)
    (tmp_path / "space.yaml").write_text("common: {lr: [0.01, 0.05]}")
    words = ["search", "--data", "data.yaml", "--variants", "[bare]", "--trials", "1", "--seeds", "[0]"]
    words += ["--space", "space.yaml", "--out", "results", "--epochs", "1", *CPU]
    assert "all 1 fits are done" in run(tmp_path, *words)
    (tested,) = kept(tmp_path / "results.parquet").values()
    assert "--model.optimizer.lr 0.01" in tested["command"]
    assert "test" in tested


def test_processes_share_the_fits_and_a_killed_one_leaves_its_own_to_the_rest(tmp_path):
    """Trials of a dead process are run again, and no fit twice."""
    write_shop(tmp_path, sessions=30)
    (tmp_path / "space.yaml").write_text("common: {lr: [0.01, 0.05]}")
    words = [
        "search",
        "--data",
        "data.yaml",
        "--variants",
        "[bare, no-views]",
        "--trials",
        "2",
        "--seeds",
        "[0]",
    ]
    words += ["--space", "space.yaml", "--out", "results", "--epochs", "1", *CPU]
    killed = start(tmp_path, *words)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/results/*/version_0")) and time.monotonic() < deadline:
        time.sleep(0.05)  # it is at its first fit
    killed.process.kill()
    killed.wait()
    pair = [start(tmp_path, *words) for _ in range(2)]
    told = [process.wait()[1:] for process in pair]
    assert all("all 6 fits are done" in one for one, _ in told), told
    runs = kept(tmp_path / "results.parquet")
    assert len(runs) == 6
    begun = list(tmp_path.glob("runs/results/*/version_*"))
    assert len(begun) - 6 <= 1  # what the killed one had begun, and nothing twice
    assert len({one["log_dir"] for one in runs.values()}) == 6


def test_the_cost_is_measured_before_anything_runs(tmp_path):
    write_shop(tmp_path, sessions=30)
    words = ["cost", "--data", "data.yaml", "--variants", "[bare, no-views]", "--backbones", "[SRGNN]"]
    told = run(tmp_path, *words, "--steps", "2", "--json", "cost.json", *CPU)
    assert "| SRGNN | no-views |" in told
    rows = json.loads((tmp_path / "cost.json").read_text())["details"]
    assert all(row["ms_a_step"] > 0 and row["seconds_an_epoch"] > 0 for row in rows)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
