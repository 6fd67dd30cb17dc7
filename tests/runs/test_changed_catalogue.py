"""The commands on data whose catalogue has changed since the run: some go on, some refuse in one line."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from shops import PARTS, write_shop
from torch.distributed import checkpoint as sharded

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.runs.saved_run import load_run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TITLES = [f"Bead {number}" for number in range(9)]


def write(folder, titles=TITLES):
    write_shop(folder, titles, parts=PARTS)


def words(root):
    return [
        *("--config", str(EXPERIMENTS / "base.yaml"), "--model", "llm4sbr.SBRModule"),
        *("--data", "SessionDataModule", "--data.data_dir", str(root / "shop"), "--data.split.by", "column"),
        *("--data.cache_dir", str(root / "cache"), "--data.batch_size", "8"),
        *("--model.backbone", "SRGNN", "--model.backbone.embedding_dim", "8", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(root / "runs")),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    write(root / "shop")
    logs = ["--trainer.logger.init_args.save_dir", str(root / "runs")]
    assert main(["fit", *words(root), *logs, "--trainer.max_epochs", "1"]) == 0
    return root


@pytest.fixture
def run(trained):
    """The run's folder; its shop is as it was when the test begins."""
    write(trained / "shop")
    return trained / "runs" / "llm4sbr" / "version_0"


def best(run):
    return next(run.glob("checkpoints/best*.ckpt"))


def test_predict_and_fit_go_on(trained, run, tmp_path):
    """As it is found, without --ckpt_path, and by name."""
    write(trained / "shop", [*TITLES, "Pearl"])
    output = tmp_path / "next.parquet"
    assert main(["predict", *words(trained), "--output", str(output)]) == 0
    assert pl.read_parquet(output).height
    more = ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.max_epochs", "2"]
    assert main(["fit", *words(trained), *more, "--ckpt_path", str(best(run))]) == 0
    after = torch.load(next(tmp_path.rglob("best*.ckpt")), weights_only=True)
    assert (after["epoch"], len(after["llm4sbr"]["items"]["ids"])) == (1, 10)


@pytest.mark.parametrize("titles", [[*TITLES, "Pearl"], ["Pearl", *TITLES[1:]]], ids=["grown", "retitled"])
def test_resume_refuses_another_catalogue(trained, run, capsys, titles):
    """Its promise is the same result. Seen to fail with the run trained on as by `fit --ckpt_path`."""
    point = run / "checkpoints" / "resume.ckpt"
    shutil.copy(best(run), point)
    write(trained / "shop", titles)
    try:
        assert main(["resume", str(run)]) == 1
    finally:
        point.unlink()
    assert "cannot be continued with the same results" in capsys.readouterr().err


def test_a_finished_run_with_other_items_is_not_drawn(trained, run):
    """Seen to fail with as many other items: their weights were those of the old ones."""
    write(trained / "shop", ["Pearl", *TITLES[1:]])
    assert load_run(run).model.backbone.num_items == 9  # a bare model reads no titles
    items = trained / "shop" / "items.csv"
    items.write_text(items.read_text().replace("i00,", "x00,"))
    events = trained / "shop" / "events.csv"
    events.write_text(events.read_text().replace("i00,", "x00,"))
    with pytest.raises(InputError, match=r"other items than the data: 8 items .* are kept, 1 is new"):
        load_run(run)


def test_a_sharded_checkpoint_is_refused_before_it_is_read(trained, run, tmp_path, capsys):
    content = torch.load(best(run), weights_only=True)
    state = content.pop("state_dict")
    sharded.save({"model": state}, checkpoint_id=tmp_path / "shards", no_dist=True)
    torch.save(content, tmp_path / "shards" / "meta.pt")
    write(trained / "shop", [*TITLES, "Pearl"])
    assert main(["test", *words(trained), "--ckpt_path", str(tmp_path / "shards")]) == 1
    assert "has other items than the data: 9 items" in capsys.readouterr().err
