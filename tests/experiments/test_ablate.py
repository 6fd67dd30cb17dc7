"""The ablations, run as a person runs them, tiny: on top of a search, by validation alone."""

import json

import pytest
import yaml
from scripts import EXPERIMENTS, run
from shops import write_shop
from studies import kept

from experiments.study.settings import words as as_words
from llm4sbr.cli.main import main


def test_one_thing_is_varied_at_a_time_and_the_test_split_stays_unread(tmp_path):
    write_shop(tmp_path, sessions=30)
    (tmp_path / "space.yaml").write_text("common:\n  lr: [1.0e-9, 0.05]\nwrapped:\n  tau: [0.2]\n")
    (tmp_path / "some.yaml").write_text("no alignment: {align: false}\nfive times τ: {tau: 1}\n")
    cpu = ["--data", "data.yaml", "--settings", "{trainer.accelerator: cpu}"]
    words = ["--variants", "[no-views]", "--trials", "2", "--seeds", "[0]", "--space", "space.yaml"]
    run(tmp_path, "search", *cpu, *words, "--epochs", "1", "--out", "results")
    searched = kept(tmp_path / "results.parquet")
    best = max((one for one in searched.values() if "trial" in one), key=lambda one: one["best_validation"])

    words = [
        "ablate",
        "--data",
        "data.yaml",
        "--tuned",
        "results",
        "--variant",
        "no-views",
        "--file",
        "some.yaml",
    ]
    two = ["--seeds", "[0, 1]", "--out", "varied", "--settings", "{epochs: 2, trainer.accelerator: cpu}"]
    told = run(tmp_path, *words, *two)
    runs = kept(tmp_path / "varied.parquet")
    assert len(runs) == 6
    assert not any("test" in one for one in runs.values())
    tuned = {**best["settings"], "epochs": 2}
    for name, changed in (("tuned", {}), ("no-alignment", {"align": False}), ("five-times-τ", {"tau": 1})):
        assert runs[f"srgnn-no-views-{name}-0"]["settings"] == {**tuned, **changed}
    rows = {row["what"]: row for row in json.loads((tmp_path / "varied.json").read_text())["details"]}
    ours, base = (
        [100 * runs[f"srgnn-no-views-{name}-{seed}"]["best_validation"] for seed in (0, 1)]
        for name in ("no-alignment", "tuned")
    )
    expected = sum(ours) / 2 - sum(base) / 2
    assert rows["no alignment"]["val/ndcg@20 difference"] == pytest.approx(expected, abs=2e-3)
    assert told.count("± ") == 6  # two variations, three metrics
    before = (tmp_path / "varied.parquet").stat().st_mtime_ns
    assert run(tmp_path, *words, *two).count("is there already") == 6
    assert before == (tmp_path / "varied.parquet").stat().st_mtime_ns

    # With the epochs of the search its own test of the tuned model serves, for its seed.
    same = [
        "--seeds",
        "[0, 1]",
        "--out",
        "short",
        "--only",
        "[alignment]",
        "--settings",
        "{trainer.accelerator: cpu}",
    ]
    assert "| tuned | 2 |" in run(tmp_path, *words, *same)
    names = {f"srgnn-no-views-{name}" for name in ("tuned-1", "no-alignment-0", "no-alignment-1")}
    assert set(kept(tmp_path / "short.parquet")) == names


def test_the_variations_kept_here_are_words_of_the_command_line(tmp_path, monkeypatch, capsys):
    """A misspelt setting would cost its whole row after hours. Seen to fail with `aligned`."""
    write_shop(tmp_path, sessions=30)
    monkeypatch.chdir(tmp_path)
    bare = ["--model", "llm4sbr.SBRModule"]
    for file, model in {"ablations.yaml": [], "ablations-training.yaml": bare}.items():
        named = yaml.safe_load((EXPERIMENTS / file).read_text())
        words = ["fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", "data.yaml", "--print_config"]
        words += [*model, "--model.backbone", "SRGNN"]
        for changed in named.values():
            words += as_words(changed, wrapped=not model)  # the last word wins, each is parsed
        with pytest.raises(SystemExit) as ended:
            main(words)
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        found = yaml.safe_load(told.out)
        if model:
            assert (found["model"]["class_path"], found["trainer"]["max_epochs"]) == ("llm4sbr.SBRModule", 16)
        else:
            schedule = found["model"]["init_args"]["lr_scheduler"]["class_path"]
            assert schedule == "torch.optim.lr_scheduler.StepLR"  # of the last variation


def test_the_search_space_kept_here_is_words_of_the_command_line(tmp_path, monkeypatch, capsys):
    write_shop(tmp_path, sessions=30)
    monkeypatch.chdir(tmp_path)
    space = yaml.safe_load((EXPERIMENTS / "search.yaml").read_text())
    words = ["fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", "data.yaml", "--print_config"]
    words += ["--model.backbone", "SRGNN"]
    for start in space["starts"]:
        words += as_words(start, wrapped=True)
    for part in ("common", "wrapped"):
        for name, values in space[part].items():
            for value in values:
                words += as_words({name: value}, wrapped=True)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0, capsys.readouterr().err
