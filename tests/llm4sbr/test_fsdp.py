"""FSDP in two CPU processes (see `cpu_fsdp`) against one process: trained, kept, tested, resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from letters import title_views
from shops import BEADS, PARTS, write_shop

from llm4sbr.datamodules import SessionDataModule, SplitBy

HELPER = Path(__file__).parents[1] / "helpers" / "sharded.py"
NAMES = ["SRGNN-bare", "SRGNN-wrapped", "SASRec-wrapped", "GCEGNN-wrapped", "DHCN-wrapped"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process found, and what each of two did."""
    folder = tmp_path_factory.mktemp("sharded")
    shop = write_shop(folder / "shop", BEADS, sessions=40, clicks=lambda s: 3, parts=PARTS)
    environment = {**os.environ, "LLM4SBR_CACHE": str(folder / "cache")}
    data = SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(folder / "cache"))
    title_views(data, shop / "views")
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(HELPER), str(folder / "run"), str(shop), devices, *NAMES, "LESSR-bare"],
            env=environment, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    files = ("run-1.0.json", "run-2.0.json", "run-2.1.json")
    return [json.loads((folder / file).read_text()) for file in files]


@pytest.mark.parametrize("name", NAMES)
def test_sharded_training_computes_what_one_process_does(found, name):
    """Losses and the checkpoint's weights to rounding, which momentum carries on; metrics exactly.

    Seen to fail with a graph that did not take its size from a checkpoint that torch reads lazily.
    """
    one, *both = (process[name] for process in found)
    for process in both:
        assert process["test"] == one["test"]
        assert process["fit"] == pytest.approx(one["fit"], rel=1e-3, abs=1e-6)
        for weight, value in one["weights"].items():
            torch.testing.assert_close(
                torch.tensor(process["weights"][weight]), torch.tensor(value), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_sharded_run_ends_as_a_whole_one(found, name):
    """The optimiser's state is in the checkpoint. Seen to fail with momentum that begins at 0."""
    for process in found:
        assert process[name]["resumed"] == process[name]["fit"]


def test_vectors_that_are_cut_in_place_train(found):
    """LESSR, not compared for its batch statistics. Seen to fail with a cut that autograd sees."""
    for process in found:
        assert 0 < process["LESSR-bare"]["fit"]["train/loss"] < 2.5  # ln V is 2.3
