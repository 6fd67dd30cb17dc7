"""Where only torch and a few small libraries are installed, a bundle opens and recommends."""

import json
import subprocess
import sys

from bundles import SESSIONS, SPEC, bundle, raw, trained

from llm4sbr.serving import Recommender

# The import of each fails, as if it were not installed: torch_geometric imports transformers if it is there.
PROLOGUE = """
import sys
ABSENT = {"lightning", "pytorch_lightning", "transformers", "peft", "wandb", "torchmetrics",
          "sentence_transformers", "matplotlib", "openai", "optuna", "gguf"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
LOAD = """
import json, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch
from llm4sbr.serving import Recommender
recommender = Recommender.load(sys.argv[1])
print(recommender.scores(json.loads(sys.argv[2])).tolist())
grown = recommender.with_items({"n": "New"}, [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
assert grown.recommend([["n"]])[0].item_ids
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
"""
COMMAND = """
from llm4sbr.cli.main import main
status = main(sys.argv[1:])
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
sys.exit(status)
"""


def bare(code, *words):
    return subprocess.run(
        [sys.executable, "-P", "-c", PROLOGUE + code, *words],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_bundle_opens_without_lightning_and_transformers(tmp_path):
    """A wrapped model with known views and every head. Seen to fail with torchmetrics imported."""
    folder = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    done = bare(LOAD, str(folder), json.dumps(raw(SESSIONS)))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == Recommender.load(folder).scores(raw(SESSIONS)).tolist()


def test_the_command_works_and_complains_there(tmp_path):
    """Seen to fail with Lightning imported for the plug-ins, and for the type of an error."""
    folder = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    done = bare(COMMAND, "recommend", str(folder), "--session", "B001", "--k", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["item_ids"] == list(
        Recommender.load(folder).recommend([["B001"]], k=3)[0].item_ids
    )
    (folder / "manifest.json").unlink()
    done = bare(COMMAND, "recommend", str(folder), "--session", "B001")
    assert done.returncode == 1
    assert done.stderr.startswith("llm4sbr: error:")
    assert len(done.stderr.splitlines()) == 1
