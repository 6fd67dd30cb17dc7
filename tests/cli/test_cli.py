"""The command line, run as a person runs it: fit, test, predict, and what goes wrong."""

import pickle
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from llm4sbr import backbones
from llm4sbr.cli.main import main

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


@pytest.fixture(autouse=True)
def _quiet_folder(tmp_path, monkeypatch):
    """Runs land in the test's own folder, as they would in a person's."""
    monkeypatch.chdir(tmp_path)


def words(command, ring_shop, *more, backbone="SRGNN"):
    return [
        command,
        *("--config", str(EXPERIMENTS / "base.yaml")),
        *("--data", "SessionDataModule", "--data.data_dir", str(ring_shop), "--data.split.by", "column"),
        *("--model.backbone", backbone),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *more,
    ]


FAST = ("--model.init_args.lr", "0.01", "--model.init_args.lr_step", "0", "--trainer.max_epochs", "6")


def test_fit_test_and_predict_find_each_other(ring_shop, tmp_path, capsys):
    assert main(words("fit", ring_shop, *FAST)) == 0
    (saved,) = tmp_path.glob("runs/*/version_0/config.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["class_path"] == "llm4sbr.LLM4SBRWrapper"
    assert main(words("test", ring_shop, *FAST)) == 0  # same words: the run is found again
    shown = capsys.readouterr()
    assert "best-" in shown.out + shown.err
    assert "test/mrr@20" in shown.out

    assert main(words("predict", ring_shop, *FAST, "--output", "out/next.parquet")) == 0
    table = pl.read_parquet("out/next.parquet")
    assert table.columns == ["session_id", "item_ids", "titles", "scores"]
    assert table["session_id"].to_list() == [f"s{s:03d}" for s in range(40) if s % 5 == 4]
    row = table.row(0, named=True)
    assert len(row["item_ids"]) == len(row["titles"]) == 12
    assert row["titles"][0].startswith("Bead ")
    assert row["scores"] == sorted(row["scores"], reverse=True)


@pytest.mark.parametrize("module", ["llm4sbr.SBRModule", "llm4sbr.LLM4SBRWrapper"])
def test_the_command_that_fit_prints_works(ring_shop, capsys, module):
    words_of_fit = words("fit", ring_shop, "--trainer.max_epochs", "1")
    place = words_of_fit.index("--model.backbone")
    assert main([*words_of_fit[:place], "--model", module, *words_of_fit[place:]]) == 0
    printed = capsys.readouterr().out.split("llm4sbr test ")[1].split()
    assert main(["test", *printed[:4]]) == 0
    assert "test/mrr@20" in capsys.readouterr().out


@pytest.mark.parametrize("backbone", sorted(backbones.__all__))
@pytest.mark.parametrize("module", ["llm4sbr.SBRModule", "llm4sbr.LLM4SBRWrapper"])
def test_every_backbone_trains_by_name(ring_shop, backbone, module):
    short = ("--model", module, "--trainer.fast_dev_run", "true")
    assert main(words("fit", ring_shop, *short, backbone=backbone)) == 0


def test_fit_without_anything_monitored_ends_well(ring_shop, capsys):
    """Seen to fail with the score of no metric printed."""
    assert main(words("fit", ring_shop, "--trainer.max_epochs", "1", "--trainer.callbacks", "[]")) == 0
    assert "The last epoch. Evaluate it with" in capsys.readouterr().out


def test_evaluation_without_a_trained_checkpoint_is_refused(ring_shop, capsys):
    assert main(words("test", ring_shop)) == 1
    assert "no trained checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("other", [("--model.init_args.tau", "0.5"), ("--views.store", "views/beauty")])
def test_evaluation_does_not_take_another_runs_checkpoint(ring_shop, capsys, other):
    assert main(words("fit", ring_shop, *FAST)) == 0
    assert main(words("test", ring_shop, *FAST, *other)) == 1
    assert "no trained checkpoint" in capsys.readouterr().err


def test_bad_data_is_one_clear_line(ring_shop, capsys):
    (ring_shop / "events.csv").write_text("session_id,item,timestamp,split\ns1,a,0,train\n")
    assert main(words("fit", ring_shop, *FAST)) == 1
    error = capsys.readouterr().err
    assert "events.csv" in error
    assert "item_id" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [("--model.label_smoothing", "2", "a share in [0, 1)"), ("--data.max_length", "0", "max_length")],
)
def test_a_value_that_a_class_refuses_is_one_clear_line(ring_shop, capsys, word, value, told):
    """Seen to fail with the parser's traceback."""
    assert main(words("fit", ring_shop, word, value)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("llm4sbr: error:")
    assert told in error


def test_sequential_rules_join_a_run_that_was_trained_without(ring_shop, tmp_path, capsys):
    """Seen to fail with the weight of the rules compared as a setting of the training."""
    assert main(words("fit", ring_shop, *FAST)) == 0
    (saved,) = tmp_path.glob("runs/*/version_0/config.yaml")
    config = yaml.safe_load(saved.read_text())
    del config["model"]["init_args"]["rules"]  # a run of an earlier version
    saved.write_text(yaml.safe_dump(config))
    listed = []
    for weight in ("0", "2"):
        assert main(words("predict", ring_shop, *FAST, "--model.rules", weight)) == 0
        listed.append(pl.read_parquet("recommendations.parquet")["scores"].to_list())
    assert listed[0] != listed[1]
    assert main(words("test", ring_shop, *FAST, "--model.rules", "2")) == 0
    assert "version_0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [([], 2, "usage"), (["--help"], 0, "views"), (["--version"], 0, "llm4sbr 0."), (["fot"], 2, "fot")],
)
def test_the_front_door(given, status, told, capsys):
    assert main(given) == status
    shown = capsys.readouterr()
    assert told in shown.out + shown.err


def test_an_unknown_key_is_an_error(ring_shop, capsys):
    with pytest.raises(SystemExit):
        main(words("fit", ring_shop, "--model.init_args.taw", "0.5"))
    assert "taw" in capsys.readouterr().err


def test_importing_llm4sbr_pulls_in_nothing_heavy():
    heavy = "transformers sentence_transformers torch_geometric wandb matplotlib polars peft"
    code = (
        "import sys, lightning; before = set(sys.modules); import llm4sbr; "
        f"print([m for m in {heavy.split()!r} if m in set(sys.modules) - before])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_checkpoint_that_would_run_code_is_refused(ring_shop, tmp_path):
    torch.save({"state_dict": RunsCode()}, tmp_path / "evil.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        main(words("test", ring_shop, "--ckpt_path", str(tmp_path / "evil.ckpt")))
    assert not Path("was-run").exists()
