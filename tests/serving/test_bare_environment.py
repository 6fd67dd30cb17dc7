"""Where only torch and a few small libraries are installed, a bundle opens, recommends and is served."""

import json
from dataclasses import asdict

import pytest
from bare_environment import BareEnvironment
from bundles import KNOWN, SESSIONS, SPEC, bundle, raw, trained
from servers import serving

from experiments.benchmarks.bare_size import server_requirements, serving_requirements
from llm4sbr.serving import Recommender

ABSENT = (
    "lightning", "pytorch_lightning", "transformers", "peft", "wandb", "torchmetrics",
    "sentence_transformers", "matplotlib", "openai", "optuna", "gguf", "pytest",
)  # fmt: skip
LOAD = """
import json, sys, warnings
from importlib.util import find_spec
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch
from llm4sbr.serving import Recommender
recommender = Recommender.load(sys.argv[1])
found = recommender.scores(json.loads(sys.argv[2])).tolist()
grown = recommender.with_items({"n": "New"}, [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
assert grown.recommend([["n"]])[0].item_ids
print(json.dumps([found, [name for name in sys.argv[3:] if find_spec(name) is not None]]))
"""
COMMANDS = """
import json, sys
from llm4sbr.cli.main import main
print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A wrapped model with known views and every head."""
    return bundle(tmp_path_factory.mktemp("bare") / "bundle", trained(), spec=SPEC)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """What docs/serving.md installs, and the extra of the server."""
    return BareEnvironment(
        tmp_path_factory.mktemp("bare") / "venv", [*serving_requirements(), *server_requirements()]
    )


def test_a_bundle_opens_without_lightning_and_transformers(bare, folder):
    """Seen to fail with Lightning linked, and with torchmetrics imported by the Recommender."""
    done = bare.run("-c", LOAD, str(folder), json.dumps(raw(SESSIONS)), *ABSENT)
    assert (done.returncode, done.stderr) == (0, "")
    scores, there = json.loads(done.stdout)
    assert there == []
    assert scores == Recommender.load(folder).scores(raw(SESSIONS)).tolist()


def test_the_commands_work_and_complain_there(bare, folder, tmp_path):
    """Seen to fail with torchmetrics imported by the Recommender."""
    session = raw([KNOWN[0]])[0]
    words = [
        ["recommend", str(folder), "--session", *session, "--k", "3", "--json"],
        ["explain", str(folder), "--session", *session, "--item", "B004", "--json"],
        ["recommend", str(tmp_path), "--session", "B001"],
    ]
    done = bare.run("-c", COMMANDS, json.dumps(words))
    recommended, explained, statuses = done.stdout.splitlines()
    here = Recommender.load(folder)
    assert json.loads(statuses) == [0, 0, 1]
    assert json.loads(recommended)["item_ids"] == list(here.recommend([session], k=3)[0].item_ids)
    assert json.loads(explained)["rank"] == asdict(here.explain(session, "B004"))["rank"]
    assert done.stderr.startswith("llm4sbr: error:")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_answers_there(bare, folder, tmp_path):
    with serving(folder, tmp_path, python=bare.python) as server:
        status, found = server.post({"sessions": raw(SESSIONS[:1]), "k": 2})
        assert (status, len(found["recommendations"][0]["item_ids"])) == (200, 2)
        assert server.post({"session": ["B001"], "item": "B004"}, "/v1/explain")[0] == 200
        assert server.stop() == 0
