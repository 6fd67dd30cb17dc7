"""A run keeps everything in its own folder: resumed from anywhere, moved, logged by W&B alone."""

import shutil
import signal

import pytest
import wandb
from metrics_csv import steady
from scripts import EXPERIMENTS
from shops import PARTS, write_shop

from llm4sbr.cli.main import main

MODULE = """
import os, signal
from lightning.pytorch.callbacks import Callback
class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == int(os.environ.get("STOP_AT", 0)):
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A shop with 6 steps an epoch, and a callback that stops a run."""
    write_shop(tmp_path / "shop", sessions=60, parts=PARTS)
    (tmp_path / "stops_runs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def words(place, *more):
    return [
        "fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", str(place / "shop" / "data.yaml"),
        "--data.batch_size", "12", "--model", "llm4sbr.SBRModule", "--model.backbone", "SRGNN",
        "--model.backbone.embedding_dim", "8", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "3",
        "--trainer.callbacks+", "stops_runs.Stop", *more,
    ]  # fmt: skip


def stop(given):
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 128 + signal.SIGTERM


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(folder):
    return steady(folder / "metrics.csv")


def test_a_run_goes_on_in_the_folder_that_is_named(place, monkeypatch):
    """From elsewhere, copied and renamed; the best epoch so far is still known, and the original untouched.

    So are checkpoints with a folder of their own. Seen to fail in a new folder below the working directory,
    with the best epoch forgotten, and with the copy's further checkpoints among the original's.
    """
    last = ("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.dirpath")
    assert main(words(place, "--trainer.logger.init_args.name", "whole", *last, str(place / "of-whole"))) == 0
    monkeypatch.setenv("STOP_AT", "8")
    stop(words(place, *last, str(place / "last")))
    monkeypatch.setenv("STOP_AT", "0")
    whole, run = place / "work/runs/whole/version_0", place / "work/runs/llm4sbr/version_0"
    copied = place / "elsewhere" / "renamed"
    shutil.copytree(run, copied)
    before, last_before = files(run), files(place / "last")
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    assert main(["resume", "../elsewhere/renamed"]) == 0
    assert files(run) == before
    assert files(place / "last") == last_before
    assert not files(place / "empty")
    lasts = {path for path in files(copied) if "epoch=" in path}
    assert len(lasts) == 1
    assert set(files(copied)) - lasts == set(files(whole))
    assert numbers(copied) == numbers(whole)
    assert (copied / "summary.json").read_text() == (whole / "summary.json").read_text()
    assert main(["resume", str(run)]) == 0  # and the original, where it is
    assert numbers(run) == numbers(whole)


def test_runs_of_weights_and_biases_alone_have_folders_of_their_own(place, monkeypatch, capsys):
    """And are found by `test`. Seen to overwrite each other's files. The logger's earlier path works."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(place))
    logger = ["--trainer.logger", "llm4sbr.loggers.WandbLogger", "--trainer.logger.save_dir", "runs"]
    logger += ["--trainer.logger.project", "p", "--trainer.max_epochs", "1"]
    for size in ("8", "12"):
        assert main(words(place, *logger, "--model.backbone.embedding_dim", size)) == 0
        wandb.finish()
    kept = {"config.yaml", "record.json", "summary.json", "samples.json", "checkpoints/best-0.ckpt"}
    folders = [path.parent for path in (place / "work/runs/p").glob("*/config.yaml")]
    assert len(folders) == 2
    assert all(kept <= set(files(folder)) for folder in folders)
    test = ["test", *words(place, *logger)[1:], "--trainer.logger", "false"]
    (twelve,) = [folder for folder in folders if "embedding_dim: 12" in (folder / "config.yaml").read_text()]
    capsys.readouterr()
    assert main([*test, "--model.backbone.embedding_dim", "12"]) == 0
    told = capsys.readouterr().out
    assert f"{twelve.relative_to(place / 'work')}/checkpoints/best-0.ckpt\n" in told
    assert "test/mrr@20" in told


def test_sigterm_between_two_steps_waits_for_the_step(place, monkeypatch):
    """With accumulated gradients, which no checkpoint holds. Seen to fail: the resumed run had others."""
    accumulate = ("--trainer.accumulate_grad_batches", "3")
    assert main(words(place, *accumulate, "--trainer.logger.init_args.name", "whole")) == 0
    monkeypatch.setenv("STOP_AT", "7")
    stop(words(place, *accumulate))
    monkeypatch.setenv("STOP_AT", "0")
    run = place / "work/runs/llm4sbr/version_0"
    assert main(["resume", str(run)]) == 0
    assert numbers(run) == numbers(place / "work/runs/whole/version_0")
