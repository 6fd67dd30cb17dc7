"""Runs of the command line that are killed and stopped, and go on."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from letters import title_views
from shops import PARTS, write_shop

from llm4sbr.datamodules import SessionDataModule, SplitBy

COMMAND = [sys.executable, "-m", "llm4sbr"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), sessions=60, clicks=lambda s: 2 + s % 4, parts=PARTS)


@pytest.fixture(scope="module")
def views(folder):
    shop = SessionDataModule(str(folder), split=SplitBy(by="column"), cache_dir=str(folder / "cache"))
    return title_views(shop, folder / "views")


def config(folder, views, root, devices=1):
    """A run of the command line: twelve steps an epoch, a checkpoint every third."""
    (root / "run.yaml").write_text(f"""
seed_everything: 1
data: {{class_path: SessionDataModule, init_args: {{data_dir: {folder}, split: {{by: column}}, bucket: 2,
  batch_size: {8 // devices}, eval_batch_size: 4, cache_dir: {folder / "cache"}}}}}
model: {{class_path: llm4sbr.LLM4SBRWrapper, init_args: {{text_dim: 8,
  session_dropout: 0.3, backbone: {{class_path: SRGNN, init_args: {{embedding_dim: 8}}}}}}}}
views: {{store: {views}}}
resume: {{every_n_steps: 3}}
trainer: {{accelerator: cpu, devices: {devices}, strategy: {"ddp" if devices > 1 else "auto"}, max_epochs: 25,
  val_check_interval: 5, enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 4,
  callbacks: [{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {{monitor: val/mrr@20,
    mode: max, filename: 'best-{{epoch}}'}}}}],
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {root}, name: run}}}}}}
""")
    return ["fit", "--config", str(root / "run.yaml")]


def finish(words, root, environment):
    done = subprocess.run(
        [*COMMAND, *words], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def numbers(root):
    return (root / "run" / "version_0" / "metrics.csv").read_text()


def weights(root):
    best = max((root / "run" / "version_0" / "checkpoints").glob("best*"), key=os.path.getmtime)
    return {name: value.tolist() for name, value in torch.load(best, weights_only=True)["state_dict"].items()}


def written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.parametrize("devices", [1, 2])
def test_kills_and_signals_lose_nothing(folder, views, tmp_path, devices):
    """`kill -9` and SIGTERM in turn, whenever; metrics and the best weights are those of a quiet run.

    Seen to fail with Lightning's logger, which deletes what was logged before; with the means of the first
    process alone; and, in two processes, with Lightning's own handler of SIGTERM.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    quiet, rough = tmp_path / "quiet", tmp_path / "rough"
    for root in (quiet, rough):
        root.mkdir()
    finish(config(folder, views, quiet, devices), quiet, environment)
    words, run = config(folder, views, rough, devices), rough / "run" / "version_0"
    chance = random.Random(devices)
    resume_file = run / "checkpoints" / "resume.ckpt"
    stops = 0
    signals = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)
    for number in signals[: 5 if devices == 1 else 3]:
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=rough, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        before, deadline = written(resume_file), time.monotonic() + 90
        while process.poll() is None and written(resume_file) == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        if process.poll() is None:
            # A scheduler signals the first process, and the kernel kills all of them.
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        told = process.communicate(timeout=60)[1]
        if process.returncode == 0:
            break
        stops += 1
        if number == signal.SIGTERM:
            assert process.returncode == -signal.SIGTERM, told  # what stopped it, not a failure of its own
            assert "Traceback" not in told
            assert f"llm4sbr resume {run}" in told
        words = ["resume", str(run)]
    assert stops >= 2
    if resume_file.exists():
        finish(words, rough, environment)
    assert not resume_file.exists()
    assert numbers(rough) == numbers(quiet)
    assert weights(rough) == weights(quiet)
    done = subprocess.run(
        [*COMMAND, "resume", str(run)], cwd=rough, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "has ended" in done.stderr
