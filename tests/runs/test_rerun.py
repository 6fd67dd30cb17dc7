"""A run can be made again, and is compared number by number."""

import json

import pytest
from scripts import EXPERIMENTS
from shops import PARTS, write_shop

from llm4sbr.cli.main import main
from llm4sbr.runs.rerun import compare


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A shop and a run on it, with dropout and workers."""
    monkeypatch.chdir(tmp_path)
    folder = write_shop(tmp_path / "shop", clicks=lambda session: 2 + session % 3, parts=PARTS)
    words = ["fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", str(folder / "data.yaml"),
             "--model.backbone", "SASRec", "--data.num_workers", "1", "--trainer.max_epochs", "2",
             "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]  # fmt: skip
    assert main(words) == 0
    return folder


def test_a_rerun_has_the_numbers_of_the_run(shop, capsys, tmp_path):
    """Seen to fail with another seed."""
    run = tmp_path / "runs" / "llm4sbr" / "version_0"
    record = json.loads((run / "record.json").read_text())
    assert record["data"]
    assert record["versions"]["torch"]
    assert main(["rerun", str(run)]) == 0
    told = capsys.readouterr().out
    assert "numbers compared, 0 differ" in told
    assert "Changed since the run" not in told
    assert (tmp_path / "runs" / "llm4sbr" / "version_0-rerun-1" / "metrics.csv").exists()
    assert main(["rerun", str(run), "--max_epochs", "1"]) == 0
    assert "0 differ" in capsys.readouterr().out


def test_what_is_not_as_it_was_is_told(shop, capsys, tmp_path):
    run = tmp_path / "runs" / "llm4sbr" / "version_0"
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    record = json.loads((run / "record.json").read_text())
    record["versions"]["torch"] = "1.0"
    (run / "record.json").write_text(json.dumps(record))
    assert main(["rerun", str(run)]) == 1
    told = capsys.readouterr().out
    assert "Changed since the run: torch was 1.0, is" in told
    assert "train/loss at step" in told
    (run / "metrics.csv").rename(run / "elsewhere.csv")
    assert main(["rerun", str(run)]) == 1
    assert "metrics.csv: the run has no metrics to compare with" in capsys.readouterr().err
    (run / "elsewhere.csv").rename(run / "metrics.csv")
    events = shop / "events.csv"
    events.write_text(events.read_text() + "s999,i01,99999,train\ns999,i02,99999,train\n")
    assert main(["rerun", str(run)]) == 1
    assert "data differ from those of the run" in capsys.readouterr().err
    (run / "record.json").write_text("[]")
    assert main(["rerun", str(run)]) == 1
    assert "record.json: this is not the record of a run" in capsys.readouterr().err
    (run / "record.json").unlink()
    assert main(["rerun", str(run)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_numbers_are_compared_by_step_and_name(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("step,val/x,throughput/y\n1,0.5,3\n2,0.75,3\n")
    second.write_text("step,val/x,throughput/y\n1,0.5,4\n2,0.7500001,4\n3,1,4\n")
    compared, different = compare(first, second)
    assert compared == 2
    changed = "val/x at step 2: 0.75 before, 0.7500001 now"
    assert different == [f"val/x at step 3 is only in {second}", changed]
