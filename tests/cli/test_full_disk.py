"""A disk that is full: one line, nothing torn, and what was kept stays. A full cache is a warning."""

import resource
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from scripts import EXPERIMENTS
from shops import PARTS, write_shop

from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.datamodules.prepared import CacheWarning


@contextmanager
def full_beyond(size):
    """No file grows beyond a size: to a program this looks like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_shop(Path("shop"), sessions=40, parts=PARTS)


def words(command, *more):
    return [
        command, "--config", str(EXPERIMENTS / "base.yaml"), "--data", "shop/data.yaml",
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--model.backbone", "SRGNN", "--model", "llm4sbr.SBRModule",
        "--model.backbone.embedding_dim", "8", *more,
    ]  # fmt: skip


def fails_in_one_line(given, size, capsys):
    capsys.readouterr()
    with full_beyond(size):
        status = main(given)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llm4sbr: error: ")]
    assert (status, len(told)) == (1, 1), told
    assert "File too large" in told[0]
    assert "--debug" not in told[0]
    assert not list(Path().rglob(".tmp-*"))


def test_a_full_disk_is_one_line_and_tears_nothing(shop, capsys):
    """No traceback, and no half of a checkpoint under its name."""
    assert main(words("fit")) == 0
    run = Path("runs/llm4sbr/version_0")
    assert main(words("predict", "--output", "next.jsonl")) == 0
    kept = Path("next.jsonl").read_bytes()
    fails_in_one_line(words("predict", "--output", "next.jsonl", "--trainer.logger", "false"), 500, capsys)
    assert Path("next.jsonl").read_bytes() == kept
    fails_in_one_line(["draw", str(run)], 3000, capsys)
    fails_in_one_line(words("fit"), 9000, capsys)
    for path in Path("runs").rglob("*.ckpt"):
        assert zipfile.ZipFile(path).testzip() is None


def test_a_full_cache_is_a_warning(shop):
    """The data are there without it."""
    data = SessionDataModule("shop", split=SplitBy(by="column"), cache_dir="full")
    with full_beyond(100), pytest.warns(CacheWarning, match="could not be cached"):
        data.prepare_data()
    assert len(data.examples("train")) > 0
