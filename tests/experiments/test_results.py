"""A study's file: what goes in comes out, processes share it, and nothing is kept twice."""

import numpy as np
import polars as pl
import pytest
from scripts import EXPERIMENTS, Started, succeeded
from studies import fit

from experiments.study.results import Study
from experiments.study.rows import Key, key_of
from llm4sbr.contracts.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_ranks_are_kept_as_they_are_down_to_the_hundredth():
    """Seen to fail with halves dropped, and with sessions that are told apart by number alone."""
    rank = np.concatenate((np.arange(1, 100.5, 0.5), [100.5, 101, 12101.0]))
    session = np.sort(np.random.default_rng(0).integers(5, 40, len(rank)))
    study = Study("study")
    study.add(fit(0, ranks=rank, session=session))
    study.add(fit(1))
    first, second = study.runs()
    assert (first["ranks"] == np.where(rank <= 100, rank, np.inf)).all()
    assert (first["session"] == np.unique(session, return_inverse=True)[1]).all()
    assert "ranks" not in second


def test_a_fit_comes_back_as_it_was():
    """Whatever other fits have, and with epochs that logged different things."""
    full = fit(
        3,
        what="no smoothing",
        settings={"lr": 0.003, "score_scale": None, "views_use": ["long_term"], "align": False},
        history=[{"train/loss": 8.53071}, {"train/loss": 7.8, "val/ndcg@20": 0.08023}],
        test={"test/recall@20": 0.1788},
        versions={"torch": "2.13.0"},
        fit_seconds=381.1,
        epochs=8,
    )
    trial = fit(1000, trial=2, settings={})
    study = Study("study.parquet")
    study.add(full)
    study.add(trial)
    assert study.runs() == [full, trial]
    assert study.tested() == [full]
    assert study.kept() == {Key("SRGNN", "bare", 3, what="no smoothing"), Key("SRGNN", "bare", 1000, 2)}
    with pytest.raises(InputError, match="saved already"):
        study.add(full)


def test_a_search_space_stays_with_the_fits():
    study = Study("study")
    study.begin("common: {lr: [1]}")
    assert not study.kept()
    study.add(fit(0))
    assert study.space() == "common: {lr: [1]}"
    study.begin("common: {lr: [1, 2]}")
    assert study.space() == "common: {lr: [1, 2]}"
    assert len(study.runs()) == 1


def test_a_study_takes_in_what_another_has_beyond_it():
    """Seen to fail with the space left behind."""
    here, there = Study("here"), Study("there")
    here.extend([fit(0), fit(1)])
    there.begin("common: {lr: [1]}")
    there.extend([fit(1), fit(2)])
    assert [key.seed for key in here.merge(there)] == [2]
    assert sorted(key.seed for key in here.kept()) == [0, 1, 2]
    assert here.space() == "common: {lr: [1]}"
    assert here.merge(there) == []
    here.begin("common: {lr: [2]}")
    with pytest.raises(InputError, match="another search space"):
        here.merge(there)


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path):
    """Seen to fail without the lock."""
    code = "import sys, studies; studies.add_fits(sys.argv[1], range(int(sys.argv[2]), 18, 3))"
    for writer in [Started(tmp_path, code, str(tmp_path), str(first)) for first in range(3)]:
        succeeded(writer)
    assert sorted(run["seed"] for run in Study("study").runs()) == list(range(18))


@pytest.mark.parametrize(
    "path", sorted((EXPERIMENTS / "results").glob("*.parquet")), ids=lambda path: path.stem
)
def test_kept_studies_are_whole(path):
    """Every tested fit's ranks give its metrics; keys are unique; no file is large."""
    study = Study(path)
    runs = study.runs()
    assert len({key_of(run) for run in runs}) == len(runs) == pl.read_parquet(path).height
    for run in study.tested():
        if "ranks" in run:
            assert len(run["ranks"]) == len(run["session"])
            assert run["test"]["test/recall@20"] == pytest.approx((run["ranks"] <= 20).mean(), abs=6e-6)
    assert path.stat().st_size < 2_000_000


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_or_the_new_one(monkeypatch):
    """Another process adds a fit after each read. Seen to fail with polars reading the path itself."""
    study, real = Study("study"), pl.read_parquet
    study.add(fit(0))

    def and_another_replaces_it(source, **options):
        with monkeypatch.context() as alone:
            alone.setattr(pl, "read_parquet", real)
            Study("study").add(fit(len(Study("study").runs())))
        return real(source, **options)

    for seen in range(1, 4):
        with monkeypatch.context() as patched:
            patched.setattr(pl, "read_parquet_schema", lambda source: study.path.unlink() or {"here": 1})
            patched.setattr(study, "exists", lambda: True)
            copy = study.path.read_bytes()
            assert len(study.scores()) == seen
            study.path.write_bytes(copy)
        monkeypatch.setattr(pl, "read_parquet", and_another_replaces_it)
        assert len(study.runs()) == seen
        monkeypatch.setattr(pl, "read_parquet", real)
