"""A third party's backbone and head, installed by pip as a distribution of their own, are found by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import Started, succeeded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("third-party")
    source, site = folder / "source", folder / "site"
    shutil.copytree(ROOT / "tests" / "conf" / "third_party", source)  # pip leaves build files behind
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    return site


@pytest.mark.parametrize("module", ["SBRModule", "LLM4SBRWrapper"])
def test_it_trains_by_name_bare_and_wrapped(installed, ring_shop, tmp_path, module):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    words = [
        "fit", "--model", f"llm4sbr.{module}", "--model.backbone", "MeanOfClicks",
        "--data", "SessionDataModule", "--data.data_dir", str(ring_shop), "--data.split.by", "column",
        "--model.heads+", "PopularFirst", "--model.heads.weight", "0.5",
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
    ]  # fmt: skip
    succeeded(Started(tmp_path, "llm4sbr", *words, environment=environment))
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    loading = (
        "import sys; import llm4sbr; from llm4sbr.testing import make_batch; "
        "model = getattr(llm4sbr, sys.argv[1]).load_from_checkpoint(sys.argv[2]).eval(); "
        "head = model.heads[0]; model(make_batch([[1]])); print(type(head).__name__, head.clicks.sum() > 20)"
    )
    loaded = Started(tmp_path, loading, module, str(checkpoint), environment=environment)
    assert succeeded(loaded).startswith("PopularFirst tensor(True)")


def test_it_keeps_the_contract(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    from their_popular_clicks import MeanOfClicks

    from llm4sbr.testing import assert_backbone

    assert_backbone(MeanOfClicks)
