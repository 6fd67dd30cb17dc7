"""Runs of the command line that are killed and stopped, and go on."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest
import torch
from letters import title_views
from metrics_csv import steady
from scripts import Started, succeeded
from shops import PARTS, write_shop

from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), sessions=60, clicks=lambda s: 2 + s % 4, parts=PARTS)


@pytest.fixture(scope="module")
def views(folder):
    shop = SessionDataModule(str(folder), split=SplitBy(by="column"), cache_dir=str(folder / "cache"))
    return title_views(shop, folder / "views")


def config(folder, views, root, devices=1):
    """A run of the command line: twelve steps an epoch, a checkpoint every third."""
    epochs = 25 if devices == 1 else 8  # enough to be killed five times, or two
    (root / "run.yaml").write_text(f"""
seed_everything: 1
data: {{class_path: SessionDataModule, init_args: {{data_dir: {folder}, split: {{by: column}}, bucket: 2,
  batch_size: {8 // devices}, eval_batch_size: 4, cache_dir: {folder / "cache"}}}}}
model: {{class_path: llm4sbr.LLM4SBRWrapper, init_args: {{text_dim: 8,
  session_dropout: 0.3, backbone: {{class_path: SRGNN, init_args: {{embedding_dim: 8}}}}}}}}
views: {{store: {views}}}
resume: {{every_n_steps: 3}}
trainer: {{accelerator: cpu, devices: {devices}, strategy: {"ddp" if devices > 1 else "auto"},
  max_epochs: {epochs}, val_check_interval: 5, log_every_n_steps: 4,
  enable_progress_bar: false, enable_model_summary: false,
  callbacks: [{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {{monitor: val/mrr@20,
    mode: max, filename: 'best-{{epoch}}'}}}}],
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {root}, name: run}}}}}}
""")
    return ["fit", "--config", str(root / "run.yaml")]


def numbers(root):
    return steady(root / "run" / "version_0" / "metrics.csv")


def weights(root):
    best = max((root / "run" / "version_0" / "checkpoints").glob("best*"), key=os.path.getmtime)
    return {name: value.tolist() for name, value in torch.load(best, weights_only=True)["state_dict"].items()}


def written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.parametrize("devices", [1, 2])
def test_kills_and_signals_lose_nothing(folder, views, tmp_path, capsys, devices):
    """`kill -9` and SIGTERM in turn, whenever; metrics and the best weights are those of a quiet run.

    Seen to fail with Lightning's logger, which deletes what was logged before; with the means of the first
    process alone; and, in two processes, with Lightning's own handler of SIGTERM.
    """
    quiet, rough = tmp_path / "quiet", tmp_path / "rough"
    for root in (quiet, rough):
        root.mkdir()
    succeeded(Started(quiet, "llm4sbr", *config(folder, views, quiet, devices)))
    words, run = config(folder, views, rough, devices), rough / "run" / "version_0"
    chance = random.Random(devices)
    resume_file = run / "checkpoints" / "resume.ckpt"
    stops = 0
    signals = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)
    for number in signals[: 5 if devices == 1 else 2]:
        started = Started(rough, "llm4sbr", *words)
        process = started.process
        before, deadline = written(resume_file), time.monotonic() + 90
        while process.is_alive() and written(resume_file) == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        with suppress(ProcessLookupError):  # it may have ended
            # A scheduler signals the first process, and the kernel kills all of them.
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        status, _, told = started.wait(60)
        if status == 0:
            break
        stops += 1
        if number == signal.SIGTERM:
            assert status == -signal.SIGTERM, told  # what stopped it, not a failure of its own
            assert "Traceback" not in told
            assert f"llm4sbr resume {run}" in told
        words = ["resume", str(run)]
    assert stops >= 2
    if resume_file.exists():
        succeeded(Started(rough, "llm4sbr", *words))
    assert not resume_file.exists()
    assert numbers(rough) == numbers(quiet)
    assert weights(rough) == weights(quiet)
    assert main(["resume", str(run)]) == 1
    assert "has ended" in capsys.readouterr().err
