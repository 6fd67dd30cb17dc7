"""What models lose to clicked items, run as a person runs it, tiny."""

import json

import pytest
from scripts import run
from shops import write_shop


def test_clicked_items_are_barred_and_nothing_else(tmp_path):
    """Seen to fail with the padding barred as item 1, and with the order of both columns changed."""
    write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    words = ["--data", "data.yaml", "--variants", "bare", "no-views", "--seeds", "0", "--quiet"]
    options = "--trainer.max_epochs 1 --trainer.accelerator cpu"
    run(tmp_path, "compare.py", *words, "--options", options, "--out", "plain")
    run(
        tmp_path, "compare.py", *words, "--options", f"{options} --model.repeat_explore true", "--out", "head"
    )
    told = run(tmp_path, "clicked.py", "plain", "head", "--json", "clicked.json")
    rows = json.loads((tmp_path / "clicked.json").read_text())
    for variant in ("bare", "no-views"):
        plain, head = (rows[f"{folder}/srgnn-{variant}-0"] for folder in ("plain", "head"))
        kept = json.loads((tmp_path / "plain" / f"srgnn-{variant}-0.json").read_text())["best_validation"]
        assert plain["kept"]["ndcg@20"] == pytest.approx(kept, abs=1e-5)
        assert plain["repeated_targets"] == 0 < plain["examples"]  # no session goes around the whole ring
        assert plain["barred"]["mrr@20"] > plain["kept"]["mrr@20"]
        assert plain["barred"]["recall@20"] == 1.0  # nine beads
        assert head["barred"]["mrr@20"] == head["kept"]["mrr@20"]  # it has seen that nobody repeats
    assert f"0 of {plain['examples']}" in told
    told = run(tmp_path, "table.py", "plain", "head", "--over-plain")
    assert "| srgnn | bare | 1 |" in told
    assert "| srgnn+repeats | no-views | 1 |" in told


def test_it_says_what_is_gone(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "srgnn-bare-0.json").write_text(json.dumps({"log_dir": "runs/gone"}))
    run(tmp_path, "clicked.py", "plain", "--json", "clicked.json")
    assert not (tmp_path / "clicked.json").exists()
