"""What models lose to repeated items, run as a person runs it, tiny."""

import json

import pytest
from scripts import run
from shops import write_shop
from studies import kept


def test_clicked_items_are_barred_and_nothing_else(tmp_path):
    """Seen to fail with the padding barred as item 1, and with the order of both columns changed."""
    write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    words = ["compare", "--data", "data.yaml", "--variants", "[bare, no-views]", "--seeds", "[0]"]
    settings = "epochs: 1, trainer.accelerator: cpu"
    run(tmp_path, *words, "--settings", f"{{{settings}}}", "--out", "plain")
    run(tmp_path, *words, "--settings", f"{{{settings}, repeat_explore: true}}", "--out", "head")
    told = run(tmp_path, "repeats", "--studies", "[plain, head]", "--json", "repeats.json")
    details = json.loads((tmp_path / "repeats.json").read_text())["details"]
    rows = {(row["study"], row["backbone"], row["variant"]): row for row in details}
    assert len(rows) == len(details) == 4
    for variant in ("bare", "no-views"):
        plain, head = rows["plain", "SRGNN", variant], rows["head", "SRGNN+repeats", variant]
        reached = kept(tmp_path / "plain.parquet")[f"srgnn-{variant}-0"]["best_validation"]
        assert plain["kept"]["ndcg@20"] == pytest.approx(reached, abs=1e-5)
        assert plain["repeated_targets"] == 0 < plain["examples"]  # no session goes around the whole ring
        assert plain["barred"]["mrr@20"] > plain["kept"]["mrr@20"]
        assert plain["barred"]["recall@20"] == 1.0  # nine beads
        assert head["barred"]["mrr@20"] == head["kept"]["mrr@20"]  # it has seen that nothing repeats
    assert f"0 of {plain['examples']}" in told
    told = run(tmp_path, "table", "--studies", "[plain, head]", "--over_plain")
    assert "| SRGNN | bare | 1 |" in told
    assert "| SRGNN+repeats | no-views | 1 |" in told
