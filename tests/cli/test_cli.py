"""The command line, run as a person runs it: fit, test, predict, and what goes wrong."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from every_backbone import OURS
from scripts import Started, succeeded

import llm4sbr
from llm4sbr.cli.commands import COMMANDS
from llm4sbr.cli.main import main
from llm4sbr.runs.trainer_cli import SBRCLI

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


FAST = ("--model.lr", "0.01", "--model.lr_scheduler", "null", "--trainer.max_epochs", "6")


def test_fit_test_and_predict_find_each_other(ring_shop, tmp_path, capsys):
    """Among the configurations of other programs, of which one is no YAML: seen to fail with a traceback."""
    assert main(words("fit", ring_shop, *FAST)) == 0
    (saved,) = tmp_path.glob("runs/*/version_0/config.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["class_path"] == "llm4sbr.LLM4SBRWrapper"
    for name, content in {
        "list": b"- a list", "tag": b"model: !Ref Stack", "template": b"title: {{ name }} [1",
        "bytes": b"\xff\xfe", "earlier": saved.read_bytes(),
    }.items():  # fmt: skip
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "checkpoints" / "best-9.ckpt").touch()
        (tmp_path / "runs" / name / "config.yaml").write_bytes(content)
    os.utime(tmp_path / "runs" / "earlier" / "config.yaml", (0, 0))
    capsys.readouterr()
    assert main(words("test", ring_shop, *FAST)) == 0  # same words: the last run is found again
    shown = capsys.readouterr().out
    (best,) = saved.parent.glob("checkpoints/best-*.ckpt")
    assert f"Checkpoint: {best.relative_to(tmp_path)}\n" in shown
    assert "test/mrr@20" in shown

    assert main(words("predict", ring_shop, *FAST, "--output", "out/next.parquet")) == 0
    table = pl.read_parquet("out/next.parquet")
    assert table.columns == ["session_id", "item_ids", "titles", "scores"]
    assert table["session_id"].to_list() == [f"s{s:03d}" for s in range(40) if s % 5 == 4]
    row = table.row(0, named=True)
    assert len(row["item_ids"]) == len(row["titles"]) == 12
    assert row["titles"][0].startswith("Bead ")
    assert row["scores"] == sorted(row["scores"], reverse=True)
    assert main(words("predict", ring_shop, *FAST, "--output", "out/next.jsonl")) == 0
    assert pl.read_ndjson("out/next.jsonl", schema=table.schema).equals(table)
    missing = ("--output", "out/next.jsonl", "--ckpt_path", "no.ckpt")
    with pytest.warns(UserWarning, match=r"next\.jsonl was not written"):  # seen to be passed over
        assert main(words("predict", ring_shop, *FAST, *missing)) == 1
    assert main(words("predict", ring_shop, *FAST, "--output", "out/next.xlsx")) == 1  # seen to hold Parquet
    assert not Path("out/next.xlsx").exists()


@pytest.mark.parametrize("module", ["llm4sbr.SBRModule", "llm4sbr.LLM4SBRWrapper"])
def test_the_command_that_fit_prints_works(ring_shop, capsys, module):
    """In a folder with a space in its name, too: seen to fail unquoted."""
    root = ("--trainer.default_root_dir", "my runs", "--trainer.logger.init_args.save_dir", "my runs")
    shown = ("--trainer.enable_progress_bar", "true")
    words_of_fit = words("fit", ring_shop, "--trainer.max_epochs", "1", *root, *shown)
    place = words_of_fit.index("--model.backbone")
    assert main([*words_of_fit[:place], "--model", module, *words_of_fit[place:]]) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"^Epoch 0, step \d+: val/\S+@20 \d\.\d{4}, val/", told, re.M)) == 1  # no terminal
    printed = shlex.split(told.split("llm4sbr test ")[1])
    assert main(["test", *printed[:4]]) == 0
    assert "test/mrr@20" in capsys.readouterr().out


@pytest.mark.parametrize("backbone", OURS)
def test_every_backbone_is_built_by_name_for_the_catalogue_of_the_data(ring_shop, monkeypatch, backbone):
    """What trains is in `tests/backbones/test_catalogue.py`. Seen to fail without the link of `num_items`."""
    made = []
    monkeypatch.setattr(SBRCLI, "_run_subcommand", lambda cli, _: made.append(cli.model.backbone))
    assert main(words("fit", ring_shop, backbone=backbone)) == 0
    assert [(type(one), one.num_items) for one in made] == [(OURS[backbone], 12)]


def test_fit_without_anything_monitored_ends_well(ring_shop, capsys):
    """Seen to fail with the score of no metric printed."""
    assert main(words("fit", ring_shop, "--trainer.max_epochs", "1", "--trainer.callbacks", "[]")) == 0
    assert "The last epoch. Evaluate it with" in capsys.readouterr().out


def test_evaluation_without_a_trained_checkpoint_is_refused(ring_shop, capsys):
    assert main(words("test", ring_shop)) == 1
    assert "no trained checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("other", [("--model.alignment.tau", "0.5"), ("--views.store", "views/beauty")])
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
    [("--model.session_dropout", "2", "and below 1.0"), ("--data.max_length", "0", "max_length")],
)
def test_a_value_that_a_class_refuses_is_one_clear_line(ring_shop, capsys, word, value, told):
    """Seen to fail with the parser's traceback."""
    with pytest.raises(SystemExit) as stop:
        main(words("fit", ring_shop, word, value))
    assert stop.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("llm4sbr: error:")
    assert told in error


def test_sequential_rules_join_a_run_that_was_trained_without(ring_shop, tmp_path, capsys):
    """Seen to fail with the weight of the rules compared as a setting of the training."""
    trained = [*FAST, "--model.heads+", "RepeatExplore"]
    assert main(words("fit", ring_shop, *trained)) == 0
    listed = []
    rules = ["--model.heads+", "SequentialRules", "--model.heads.weight", "2"]
    for more in ([], rules):
        assert main(words("predict", ring_shop, *trained, *more)) == 0
        listed.append(pl.read_parquet("recommendations.parquet")["scores"].to_list())
    assert listed[0] != listed[1]
    assert main(words("test", ring_shop, *trained, *rules)) == 0
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
    """Nor does the help need torch. Seen to fail with names that `llm4sbr` imports at once."""
    heavy = "transformers sentence_transformers torch_geometric wandb matplotlib polars peft"
    code = (
        "import sys, llm4sbr.cli.main; llm4sbr.cli.main.main(['--help']); print('torch' in sys.modules); "
        "import lightning; before = set(sys.modules); llm4sbr.LLM4SBRWrapper; "
        f"print([m for m in {heavy.split()!r} if m in set(sys.modules) - before])"
    )
    shown = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-2:] == ["False", "[]"]


def status_of(given):
    """Exit status of the command line, whether its parser or its function ends it."""
    try:
        return main(given)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["fot"], "did you mean 'fit'?"),
        (["views", "infre"], "did you mean 'infer'?"),
        (["views"], "infer, report, merge"),
        (["draw", "--outt", "x"], "did you mean 'out'?"),
        (["rerun"], "run_dir"),
        (["fit", "--data", "SessionDataModule", "--data.bach_size", "3"], "did you mean 'batch_size'"),
        (["fit", "--data", "SessionDataModule", "--data.batch_size", "many"], "must be a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_status_2_and_one_line_with_a_suggestion(given, told, capsys):
    """Seen to fail with the parser's usage and its list of everything that it tried."""
    status = status_of(given)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("llm4sbr: error: ")
    assert told in line


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.yaml", None, "missing.yaml"),
        ("broken.yaml", b"a: [1", "broken.yaml: this is not YAML"),
        ("bytes.yaml", b"\xff\xfe\x80", "bytes.yaml: this is not"),
    ],
)
@pytest.mark.parametrize("option", ["--config", "--data"])
def test_a_bad_configuration_is_status_1_and_one_line(tmp_path, capsys, option, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status = status_of(["fit", option, name])
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1
    assert line.startswith("llm4sbr: error: ")
    assert told in line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_line_in_the_help_and_examples_in_its_own(name, capsys):
    assert main(["--help"]) == 0
    assert f"  {name:<13} {COMMANDS[name].summary}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"\n  llm4sbr {name} {example}\n" in shown for example in COMMANDS[name].examples)
    assert 1 <= len(COMMANDS[name].examples) <= 3


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_bad_checkpoint_is_one_line_for_every_command(ring_shop, tmp_path, capsys):
    """Seen to fail with a traceback of `torch.load` or `load_state_dict`."""
    assert main(words("fit", ring_shop, *FAST)) == 0
    (good,) = tmp_path.glob("runs/*/version_0/checkpoints/best*.ckpt")
    torch.save({"state_dict": RunsCode()}, tmp_path / "evil.ckpt")
    flipped = bytearray(good.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    (tmp_path / "half.ckpt").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "text.ckpt").write_text("text")
    capsys.readouterr()
    for command in ("fit", "test"):
        for name in ("evil", "flipped", "half", "text", "none"):
            assert main(words(command, ring_shop, *FAST, "--ckpt_path", f"{name}.ckpt")) == 1
            told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
            assert len(told) == 1, told
            assert told[0].startswith(f"llm4sbr: error: {name}.ckpt: ")
    assert not Path("was-run").exists()
    other = ("--model.backbone.init_args.embedding_dim", "24", "--ckpt_path", str(good))
    assert main(words("test", ring_shop, *FAST, *other)) == 1
    assert "the checkpoint is of another model: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "status"),
    [(["resume", "none"], 1), (["fit", "--data", "none.yaml"], 1), (["draw", "--sample", "many"], 2)],
)
def test_the_stack_is_shown_on_demand(given, status, capsys):
    """Wherever the word stands, and for that command alone."""
    for words_given in (["--debug", *given], [*given, "--debug"]):
        assert status_of(words_given) == status
        shown = capsys.readouterr().err
        assert "Traceback" in shown
        assert shown.splitlines()[-1].startswith("llm4sbr: error: ")
    assert status_of(given) == status
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_is_one_line_too(monkeypatch, capsys):
    """Its type and place stand in it. Seen to fail with a traceback."""

    def broken(run_dir: str):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("llm4sbr.runs.resume.resume", broken)
    assert main(["resume", "none"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("llm4sbr: error: ZeroDivisionError: a b (at ")
    assert "--debug" in line


def test_processes_of_tests_run_the_installed_package(tmp_path):
    """As this one does. Seen to fail with a path that begins with the checkout."""
    told = succeeded(Started(tmp_path, "import llm4sbr; print(llm4sbr.__file__)"))
    assert told.strip() == llm4sbr.__file__
