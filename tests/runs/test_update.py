"""`llm4sbr update`: a finished run goes on with a grown catalogue, as a run of its own."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from letters import Letters, title_views
from shops import PARTS, write_shop

from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.cold_items import cold_rows
from llm4sbr.runs.saved_run import load_run
from llm4sbr.runs.update import config_of_update
from llm4sbr.serving import Recommender

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TITLES = [f"Bead {number}" for number in range(9)]
TABLE = "backbone.embedding.parametrizations.weight.original"


def data(folder):
    return SessionDataModule(str(folder / "shop"), split=SplitBy("column"), cache_dir=str(folder / "cache"))


def words(root):
    return [
        *("--config", str(EXPERIMENTS / "base.yaml"), "--views.store", str(root / "views")),
        *("--data", "SessionDataModule", "--data.data_dir", str(root / "shop"), "--data.split.by", "column"),
        *("--data.cache_dir", str(root / "cache"), "--data.batch_size", "8"),
        *("--model.text_dim", "8", "--model.backbone", "SRGNN", "--model.backbone.embedding_dim", "8"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.default_root_dir", str(root / "runs")),
        *("--trainer.logger.init_args.save_dir", str(root / "runs"), "--trainer.max_epochs", "2"),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, and beside it the shop of a day later, with two more beads and their views."""
    root = tmp_path_factory.mktemp("shops")
    write_shop(root / "shop", TITLES, parts=PARTS)
    title_views(data(root), root / "views")
    assert main(["fit", *words(root)]) == 0
    write_shop(root / "later" / "shop", [*TITLES, "Bead of amber", "Pearl"], parts=PARTS)
    title_views(data(root / "later"), root / "later" / "views")
    return root / "runs" / "llm4sbr" / "version_0"


def later(run):
    root = run.parents[2] / "later"
    return ["--data.data_dir", str(root / "shop"), "--views.store", str(root / "views")]


def weights(run):
    (best,) = run.glob("checkpoints/best*.ckpt")
    return torch.load(best, weights_only=True)


def test_known_items_keep_their_rows_and_new_ones_start_from_their_titles(run, tmp_path, caplog):
    """With a rate of almost 0 the start is what is saved. A run that was killed before its first checkpoint
    starts there again.
    """
    out = tmp_path / "today"
    still = ["--model.optimizer.lr", "1e-9", "--epochs", "1"]
    assert main(["update", str(run), *later(run), *still, "--out", str(out)]) == 0
    assert "9 items of the checkpoint are kept, 2 are new and begin from their titles" in caplog.text
    before, after = weights(run)["state_dict"], weights(out)["state_dict"]
    assert after[TABLE].shape == (12, 8)
    torch.testing.assert_close(after[TABLE][:10], before[TABLE], atol=1e-6, rtol=0)
    titles = Letters().encode([*TITLES, "Bead of amber", "Pearl"])
    expected = cold_rows(before[TABLE][1:], titles[:9], titles[9:])
    torch.testing.assert_close(after[TABLE][10:], expected, atol=1e-6, rtol=0)
    cut = shutil.copytree(out, tmp_path / "cut", ignore=shutil.ignore_patterns("checkpoints", "metrics.csv"))
    assert main(["resume", str(cut)]) == 0
    assert all(torch.equal(after[name], one) for name, one in weights(cut)["state_dict"].items())


def test_it_is_a_run_as_any_other(run, tmp_path):
    """Its own folder, record, epochs and schedule, which begins anew at a lower rate; it can be exported."""
    assert main(["update", str(run), *later(run), "--epochs", "2", "--lr_factor", "0.5"]) == 0
    out = run.with_name("version_1")
    rates = {}
    for folder in (run, out):
        with (folder / "metrics.csv").open() as file:
            rates[folder] = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates[out] == pytest.approx([0.5 * rate for rate in rates[run]], rel=0.1)
    assert 0 < rates[out][1] < rates[out][0]
    assert json.loads((out / "record.json").read_text())["run"] == str(out)
    assert load_run(out).model.backbone.num_items == 11
    assert main(["export", str(out), "--out", str(tmp_path / "bundle")]) == 0
    assert "i10" in Recommender.load(tmp_path / "bundle").recommend([["i09"]])[0].item_ids
    config = yaml.safe_load((out / "config.yaml").read_text())
    lr = [
        one["model"]["init_args"]["optimizer"]["init_args"]["lr"] for one in (config, config_of_update(out))
    ]
    assert lr[0] == lr[1]  # the rate of an update is not lowered again


def test_the_same_catalogue_trains_on_with_a_schedule_of_its_own(run, tmp_path):
    out = tmp_path / "more"
    assert main(["update", str(run), "--epochs", "1", "--out", str(out)]) == 0
    (schedule,) = weights(out)["lr_schedulers"]
    assert schedule["T_max"] == weights(out)["global_step"]  # `fit --ckpt_path` restores that of the run


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (["nowhere"], 1, "there is no such run"),
        (["RUN", "--epochs", "0"], 1, "epochs must be"),
        (["RUN", "--lr_factor", "nan"], 1, "lr_factor must be"),
        (["RUN", "--out", "FULL"], 1, "this folder is not empty"),
        (["RUN", "--ckpt_path", "lost.ckpt"], 1, "there is no such checkpoint"),
        (["RUN", "--epochs", "x"], 2, "invalid int value"),
        (["--epochs", "1"], 2, "RUN"),
        (["RUN", "--lr_faktor", "1"], 2, "lr_faktor"),
    ],
)
def test_wrong_words_are_told_in_one_line(run, tmp_path, capsys, given, status, said):
    (tmp_path / "full" / "file").parent.mkdir()
    (tmp_path / "full" / "file").touch()
    names = {"RUN": str(run), "FULL": str(tmp_path / "full")}
    try:
        found = main(["update", *(names.get(word, word) for word in given)])
    except SystemExit as ended:
        found = ended.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert (found, len(lines)) == (status, 1)
    assert said in lines[0]
