"""Sweeps: every parameter is one of the command line, and runs that `wandb agent` starts work."""

import json
import os
import subprocess

import polars as pl
import pytest
import wandb_file
import yaml
from scripts import EXPERIMENTS
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb_server import ENTITY, SweepServer

from llm4sbr.cli.main import main

SWEEPS = sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))
SHORT = [
    "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2", "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--data.num_workers=0",
]  # fmt: skip


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
    """As many runs as the longest list of values: each value is in one of them, the first in the first."""
    values = {name: choices(parameter) for name, parameter in sweep["parameters"].items()}
    for place in range(max(map(len, values.values()))):
        yield {name: options[min(place, len(options) - 1)] for name, options in values.items()}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_parameter_of_a_sweep_is_one_of_the_command_line(path, monkeypatch, capsys):
    """And every value is one that it takes. Seen to fail with `views.ratio` in place of `views.r`.

    W&B names a sweep without ``project`` after its folder.
    """
    monkeypatch.chdir(EXPERIMENTS.parent)
    sweep = yaml.safe_load(path.read_text())
    assert sweep["project"] == "llm4sbr"
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


@pytest.fixture
def shell(root, environment):
    """Runs commands as README's reader does, logged in to a server, offline in training."""

    def run(server, *words):
        told = {
            **os.environ, **environment, "WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": server.url, "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        return subprocess.run(
            words, cwd=root, env=told, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture
def serve():
    servers = []

    def start(*given):
        servers.append(SweepServer(*given))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.data
def test_runs_of_a_sweep_by_the_agent(root, shell, serve, monkeypatch):
    """Two runs. The first is stopped early, which is no failure: an agent that bears none goes on.

    The second is kept offline and complete: what it wrote is what the CSV file has, and the summary is the
    chosen epoch's. Seen to fail with an exit of status 143.
    """
    monkeypatch.setenv("WANDB_AGENT_MAX_INITIAL_FAILURES", "1")
    sweep = yaml.safe_load((EXPERIMENTS / "sweeps" / "fusion.yaml").read_text())
    sweep["command"] += SHORT[1:]  # all batches, or as many as a run is dealt
    (root / "short.yaml").write_text(yaml.safe_dump(sweep))
    before = set((root / "runs").rglob("resume.ckpt")) | set((root / "runs").rglob("*.wandb"))

    def made(name):
        return set((root / "runs").rglob(name)) - before

    first = {**next(runs(sweep)), "trainer.max_epochs": 1}
    *_, second = runs(sweep)
    second |= {"trainer.max_epochs": 2, "trainer.limit_train_batches": 3}
    server = serve([first, second], lambda run: run == "run0" and bool(made("resume.ckpt")))
    told = shell(server, "wandb", "sweep", "short.yaml")
    assert f"wandb agent {ENTITY}/llm4sbr/sweep1" in told.stderr
    done = shell(server, "wandb", "agent", f"{ENTITY}/llm4sbr/sweep1")
    assert done.returncode == 0, done.stderr
    assert server.dealt == {"run0": first, "run1": second}
    assert len(made("resume.ckpt")) == 1  # the stopped run can be resumed, the other has ended
    (file,) = made("run-run1.wandb")
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
    assert wandb_file.config(file)["optimizer"]["lr"] == second.get("model.optimizer.lr", 0.006)
