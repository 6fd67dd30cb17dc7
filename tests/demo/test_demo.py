"""The demo on a small set of ratings in MovieLens' own files: bad options, and the whole road once."""

import json
import os
import random
import signal

import pytest

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.demo.command import demo
from llm4sbr.demo.intents import infer_within, pick_sample, pick_stories
from llm4sbr.views.store import ViewStore


@pytest.fixture
def ratings(tmp_path, monkeypatch):
    """Folder of ``u.data`` and ``u.item``: 40 users, three bursts each, 30 films."""
    monkeypatch.setenv("LLM4SBR_CACHE", str(tmp_path / "cache"))
    dice, lines = random.Random(3), []
    for user in range(1, 41):
        for burst in range(3):
            for click in range(8):
                when = 100_000 * burst + 5_000 * user + 10 * click
                lines.append(f"{user}\t{dice.randint(1, 30)}\t{dice.randint(1, 5)}\t{when}")
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    films = [f"{film}|Café <b>{film}</b> ({1960 + film})|||" for film in range(1, 31)]
    (folder / "u.item").write_bytes("\n".join(films).encode("latin-1") + b"\n")
    return folder


@pytest.mark.parametrize(
    "bad",
    [
        *({"epochs": 0}, {"sessions": 0}, {"stories": -1}, {"threads": 0}),
        *({"max_length": 0}, {"max_items": 0}, {"llm_seconds": -1.0}),
    ],
)
def test_an_option_out_of_range_is_named(bad, tmp_path):
    (name,) = bad
    with pytest.raises(InputError, match=name):
        demo(str(tmp_path / "out"), **bad)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        demo(str(tmp_path / "out"))


def test_stories_are_of_sessions_apart_and_of_the_preferred_length_first(stubs):
    """Seen to fail with every example drawn, and with the lengths left aside."""
    source = stubs.FakeSource()
    examples = source.examples("test")
    picked = [row for _, row in pick_stories(source, 99, seed=0, clicks=(3, 4))]
    assert len({examples.session_id(row) for row in picked}) == len(picked) == len(set(examples.session))
    fitting = [3 <= len(examples.prefix(row)) <= 4 for row in picked]
    assert fitting == sorted(fitting, reverse=True)
    assert any(fitting)
    assert [row for _, row in pick_stories(source, 3, seed=0, clicks=(3, 4))] == picked[:3]
    with pytest.raises(InputError, match=r"no example to show \(got 'predict'\)"):
        pick_stories(source, 1, seed=0, split="predict")


def test_a_larger_sample_extends_a_smaller_one(stubs):
    some, more = (pick_sample(stubs.FakeSource(), count, 0, ("train", "test")) for count in (5, 8))
    assert len(set(some)) == 10
    assert more[:10] == some


def test_a_stopped_run_keeps_its_answers(stubs, tmp_path):
    """Seen to fail with the interruption passed over: it went on with the next part."""
    source, engine = stubs.FakeSource(), stubs.StubEngine(batch_size=4)
    reply, stopped = engine.reply, []

    def interrupted(prompt):
        if len(engine.asked) == 9 and not stopped:  # in the second batch; the first prompt loads the model
            stopped.append(os.kill(os.getpid(), signal.SIGINT))
        return reply(prompt) if "1. " in prompt else "soap"

    engine.reply = interrupted
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ViewStore(tmp_path) as store, pytest.raises(KeyboardInterrupt):
            infer_within(
                source, store, pick_sample(source, 9, 0, ("train",)),
                limit=9, engine=engine, encoder=stubs.StubEncoder(), seconds=60.0, log=lambda line: None,
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    with ViewStore(tmp_path) as store:
        assert sum(len(list(store.answers(spec))) for spec in store.answer_specs()) == 8


@pytest.mark.llm
def test_the_whole_road_twice(ratings, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LLM4SBR_CACHE")  # the converted weights are worth keeping
    out = tmp_path / "out"
    words = ["demo", "--out", str(out), "--data_dir", str(ratings), "--sessions", "3", "--epochs", "2"]
    words += ["--stories", "2", "--max_items", "3"]

    def road():
        assert main(words) == 0
        return json.loads((out / "results.json").read_text())

    first = road()
    page = (out / "report.html").read_text()
    assert "Café &lt;b&gt;" in page
    assert "<b>1</b> (" not in page
    for name in ("views/views.sqlite", "recommendations/bare.parquet", "recommendations/wrapped.parquet"):
        assert (out / name).is_file()
    assert [run["name"] for run in first["runs"]] == ["SR-GNN", "SR-GNN + LLM4SBR"]
    for run in first["runs"]:
        assert len(run["history"]) == 2
        nine = {f"{kind}@{k}" for kind in ("recall", "mrr", "ndcg") for k in (5, 10, 20)}
        assert {f"test/{name}" for name in nine} <= set(run["metrics"])
        chosen = run["history"][run["best_epoch"] - 1]
        assert {"train/loss", *(f"val/{name}" for name in nine)} <= set(chosen)
        assert chosen["val/ndcg@20"] == max(epoch["val/ndcg@20"] for epoch in run["history"])
    assert "On the validation split SR-GNN + LLM4SBR is " in page
    assert first["intents"]["prompts"] == 6
    assert first["intents"]["off_catalogue"] == 0
    assert sum(count for _, count in first["intents"]["frequent"]) <= 6
    titles = {film.split("|")[1] for film in (ratings / "u.item").read_text("latin-1").splitlines()}
    assert len(first["stories"]) == 2
    for story in first["stories"]:
        assert [view["source"] for view in story["views"]] == ["llm", "llm"]
        assert all(view["intent"] in titles for view in story["views"])  # seen to fail with free answers
        assert sum(view["share"] for view in story["views"]) == pytest.approx(1, abs=1e-4)
        assert all(len(view["localised"]) == 5 for view in story["views"])
        for ranked in story["recommendations"].values():
            marked = [place for place, (*_, hit) in enumerate(ranked["items"], 1) if hit]
            assert marked == ([ranked["target_rank"]] if ranked["target_rank"] <= 10 else [])

    second = road()
    assert second["intents"]["prompts"] == 0
    assert second["intents"]["reused"] == 6
    for key in ("metrics", "history"):
        assert [run[key] for run in second["runs"]] == [run[key] for run in first["runs"]]
    assert second["stories"] == first["stories"]
    capsys.readouterr()
