"""The ablations, run as a person runs them, tiny: on top of a protocol, by validation alone."""

import json
import shlex

import pytest
import yaml
from scripts import EXPERIMENTS, run
from shops import write_shop

from llm4sbr.cli.main import main


def test_one_thing_is_varied_at_a_time_and_the_test_split_stays_unread(tmp_path):
    write_shop(tmp_path, sessions=30)
    (tmp_path / "space.yaml").write_text(
        "common:\n  --model.lr: [1.0e-9, 0.05]\nwrapped:\n  --model.tau: [0.2]\n"
    )
    (tmp_path / "some.yaml").write_text("no alignment: --model.align false\nfive times τ: --model.tau 1\n")
    shared = ["--data", "data.yaml", "--quiet", "--options", "--trainer.accelerator cpu"]
    words = [
        "--variants",
        "no-views",
        "--trials",
        "2",
        "--seeds",
        "0",
        "--space",
        "space.yaml",
        "--epochs",
        "1",
    ]
    run(tmp_path, "protocol.py", *shared, *words, "--out", "results")
    best = max(
        (json.loads(path.read_text()) for path in (tmp_path / "results" / "trials").glob("*.json")),
        key=lambda one: one["best_validation"],
    )
    words = ["--tuned", "results", "--variant", "no-views", "--seeds", "0", "1", "--file", "some.yaml"]
    words += ["--epochs", "2", "--out", "varied", "--json", "varied.json"]
    told = run(tmp_path, "ablations.py", *shared, *words)
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "varied").glob("*.json")}
    assert len(kept) == 6
    assert not any("test" in one for one in kept.values())
    tuned = best["options"][: best["options"].index("--trainer.max_epochs")]
    for name, added in (
        ("tuned", []),
        ("no-alignment", ["--model.align", "false"]),
        ("five-times-tau", ["--model.tau", "1"]),
    ):
        options = kept[f"srgnn-no-views-{name}-0"]["options"]
        assert options == [*tuned, "--trainer.max_epochs", "2", *added]
    rows = {row["what"]: row for row in json.loads((tmp_path / "varied.json").read_text())["details"]}
    ours, base = (
        [100 * kept[f"srgnn-no-views-{name}-{seed}"]["best_validation"] for seed in (0, 1)]
        for name in ("no-alignment", "tuned")
    )
    expected = sum(ours) / 2 - sum(base) / 2
    assert abs(rows["no alignment"]["val/ndcg@20 difference"] - expected) < 2e-3
    assert told.count("± ") == 6  # two variations, three metrics
    short = [*words, "--only", "alignment"]
    short[short.index("2")], short[short.index("varied")] = (
        "1",
        "short",
    )  # the epochs that the protocol tested
    assert "| tuned | 2 |" in run(tmp_path, "ablations.py", *shared, *short)
    names = {path.stem for path in (tmp_path / "short").glob("*.json")}
    assert names == {
        "srgnn-no-views-tuned-1",
        "srgnn-no-views-no-alignment-0",
        "srgnn-no-views-no-alignment-1",
    }
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("varied/*.json")}
    run(tmp_path, "ablations.py", *shared, *words)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("varied/*.json")}


def test_the_variations_kept_here_are_words_of_the_command_line(tmp_path, monkeypatch, capsys):
    """A misspelt option would cost its whole row after hours. Seen to fail with `--model.aligned`."""
    write_shop(tmp_path, sessions=30)
    monkeypatch.chdir(tmp_path)
    kinds = {
        "ablations.yaml": [],
        "ablations-training.yaml": ["--model", "llm4sbr.SBRModule"],
    }  # bare: no wrapper
    for file, model in kinds.items():
        named = yaml.safe_load((EXPERIMENTS / file).read_text())
        words = ["fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", "data.yaml", "--print_config"]
        words += [*model, "--model.backbone", str(EXPERIMENTS / "backbone" / "srgnn.yaml")]
        for added in named.values():
            words += shlex.split(added)  # the last word wins, each is parsed
        with pytest.raises(SystemExit) as ended:
            main(words)
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        found = yaml.safe_load(told.out)
        if model:
            assert (found["model"]["class_path"], found["trainer"]["max_epochs"]) == ("llm4sbr.SBRModule", 16)
        else:
            assert found["model"]["init_args"]["separate_projections"] is True
