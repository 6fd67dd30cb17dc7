"""Sweeps: every parameter is one of the command line, and a run started as the agent starts it works."""

import json
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest
import torch
import wandb_file
import yaml
from letters import title_views
from scripts import EXPERIMENTS
from views_stubs import StubEngine
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from llm4sbr.cli import main
from llm4sbr.datamodules import AmazonBeauty, KCore, SplitBy
from llm4sbr.views import infer_views
from llm4sbr.views.spec import ModelIdentity
from llm4sbr.views.store import ViewStore

SWEEPS = sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))
BEAUTY = EXPERIMENTS.parent.parent / "shared" / "data" / "beauty"
SHORT = [
    "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2", "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1",
    "--data.num_workers=0",
]  # fmt: skip


class Wide:
    """An encoder without weights, as wide as MiniLM."""

    identity = ModelIdentity("wide", "1")

    def encode(self, texts):
        rows = [torch.randn(384, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def choices(parameter):
    if "values" in parameter:
        return parameter["values"]
    return [parameter["value"]] if "value" in parameter else [parameter["min"], parameter["max"]]


def command(sweep, chosen):
    """The words that the agent runs, by its own code."""
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    words = []
    for word in create_sweep_command(sweep["command"]):
        name = word.removeprefix("${").removesuffix("}")
        words += {**made, "env": ["/usr/bin/env"]}.get(name, [word])
    return words


def runs(sweep):
    """One run for each value of each parameter, the others at their first."""
    first = {name: choices(parameter)[0] for name, parameter in sweep["parameters"].items()}
    yield first
    for name, parameter in sweep["parameters"].items():
        for value in choices(parameter)[1:]:
            yield {**first, name: value}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkout in which stage 1 has run, with stand-ins for the LLM and the encoder."""
    if not BEAUTY.is_dir():
        pytest.skip("the Beauty data are not in ../shared/data")
    root = tmp_path_factory.mktemp("work") / "main"
    root.mkdir()
    (root.parent / "shared").symlink_to(BEAUTY.parent.parent)
    (root / "experiments").symlink_to(EXPERIMENTS)
    cache = str(root / "cache")
    whole = AmazonBeauty(str(BEAUTY), cache_dir=cache)
    core = AmazonBeauty(
        str(BEAUTY), cache_dir=cache, kcore=KCore(over="all", min_item_clicks=40, min_session_length=3),
        split=SplitBy(by="column", sample=0.3),
    )  # fmt: skip
    for name in ("beauty", "titles"):
        title_views(whole, root / "views" / name, Wide())
    with ViewStore(root / "views" / "beauty-core") as store:
        infer_views(core, store, encoder=Wide(), engine=StubEngine(), limit=40, progress=False)
    return root


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_parameter_of_a_sweep_is_one_of_the_command_line(path, monkeypatch, capsys):
    """And every value is one that it takes. Seen to fail with `views.ratio` in place of `views.r`."""
    monkeypatch.chdir(EXPERIMENTS.parent)
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"] == {"name": "val/ndcg@20", "goal": "maximize"}
    for chosen in runs(sweep):
        words = command(sweep, chosen)
        assert words[:2] == ["/usr/bin/env", "llm4sbr"]
        with pytest.raises(SystemExit) as ended:
            main([*words[2:], "--print_config"])
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        made = yaml.safe_load(told.out)
        for name, value in chosen.items():
            if name.startswith("views."):
                assert made["views"][name.removeprefix("views.")] == value


@pytest.mark.data
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_run_of_a_sweep_by_the_agents_command(path, root):
    """Offline and complete: what it wrote is what the CSV file has, and the summary is the chosen epoch's."""
    sweep = yaml.safe_load(path.read_text())
    *_, chosen = runs(sweep)
    before = set((root / "runs").rglob("*.wandb"))
    here = Path(os.sys.executable).parent  # the console script of this environment
    environment = {
        **os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "LLM4SBR_CACHE": str(root / "cache"),
        "PATH": f"{here}:{os.environ['PATH']}",
    }  # fmt: skip
    words = [*command(sweep, chosen), *SHORT]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = set((root / "runs").rglob("*.wandb")) - before
    folder = max((root / "runs" / "llm4sbr").glob("version_*"), key=lambda run: run.stat().st_mtime)
    table = pl.read_csv(folder / "metrics.csv")
    logged = wandb_file.history(file)
    for name in ("train/loss", "train/lr", "val/ndcg@20", "throughput/examples_per_second"):
        here = table[name].drop_nulls().to_list()
        assert here == pytest.approx([row[name] for row in logged if name in row], rel=1e-6)
        assert len(here) == 2
    summary = json.loads((folder / "summary.json").read_text())
    best = table["val/ndcg@20"].drop_nulls().to_list()
    assert summary["val/ndcg@20"] == pytest.approx(max(best))
    told = wandb_file.summary(file)
    assert all(told[name] == pytest.approx(value) for name, value in summary.items())
    assert wandb_file.config(file)["lr"] == chosen.get("model.lr", 0.001)
