"""A stranger's configuration builds known classes only: nothing else is even imported."""

import copy
import json
import shutil
import sys

import pytest
import yaml

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.runs.class_paths import MOVED, known_paths, renamed
from llm4sbr.runs.trust import check_configuration, check_words, trusting

CONFIG = {
    "trainer": {
        "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}],
        "strategy": "auto",
    },
    "model": {
        "class_path": "llm4sbr.SBRModule",
        "init_args": {
            "backbone": {"class_path": "llm4sbr.backbones.SRGNN", "init_args": {"embedding_dim": 8}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "lr_scheduler": {"class_path": "llm4sbr.training.schedules.CosineToEnd"},
        },
    },
    "data": {"class_path": "SessionDataModule", "init_args": {"data_dir": "os.path", "events": "csv.csv"}},
    "output": "json.jsonl",
}  # fmt: skip
EVIL = "stranger_module.Evil"
FORMS = {
    "a callback": ("trainer", "callbacks", [{"class_path": EVIL}]),
    "a callback by its name alone": ("trainer", "callbacks", [EVIL]),
    "a strategy": ("trainer", "strategy", {"class_path": EVIL}),
    "a plug-in": ("trainer", "plugins", [EVIL]),
    "data": ("data", "class_path", EVIL),
    "a callable of the standard library": ("optimizer", "class_path", "subprocess.Popen"),
    "a callable inside a known module": ("optimizer", "class_path", "llm4sbr.runs.record.os.system"),
    "a callable as an argument": ("lr_scheduler", "init_args", {"lr_lambda": EVIL}),
    "a module inside a backbone": ("model", "init_args", {"backbone": {"init_args": {"module": EVIL}}}),
    "a key with a point": ("model.class_path", None, EVIL),
    "a file": ("model", "init_args", {"backbone": "part.txt"}),
}


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that notes that it was imported, and a file of a part that names it."""
    (tmp_path / "stranger_module.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "part.txt").write_text(f"class_path: {EVIL}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, form=None):
    config = copy.deepcopy(CONFIG)
    if form is not None:
        part, key, value = FORMS[form]
        if key is None:
            config[part] = value
        else:
            config.setdefault(part, {})[key] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return config, path


@pytest.mark.parametrize("form", FORMS)
def test_a_class_that_is_not_known_is_refused_before_its_import(stranger, form):
    config, path = written(stranger, form)
    with pytest.raises(InputError, match=r"not known.*--trust") as refused:
        check_configuration(config, path)
    assert refused.value.value in (EVIL, "subprocess.Popen", "llm4sbr.runs.record.os.system")
    for words in (["--config", str(path)], [f"--config={path}"], ["--data", str(path)]):
        with pytest.raises(InputError, match="not known"):
            check_words(words)
    assert "stranger_module" not in sys.modules
    with trusting():
        check_configuration(config, path)


def test_json_with_tabs_is_read_as_the_parser_reads_it(stranger):
    """Seen to pass unread: YAML refuses tabs."""
    config, path = written(stranger, "data")
    path.write_text(json.dumps(config, indent="\t"))
    with pytest.raises(InputError, match="not known"):
        check_words(["--config", str(path)])


def test_known_classes_names_of_files_the_users_own_words_and_tables_pass(stranger):
    """The name of a file is no class path."""
    config, path = written(stranger)
    check_configuration(config, path)
    assert config == CONFIG
    (stranger / "next.csv").write_text(f"class_path: {EVIL}\n")
    check_words(["--config", str(path), "--trainer.callbacks+", EVIL, "--data.predict_events", "next.csv"])
    assert "stranger_module" not in sys.modules


@pytest.mark.parametrize("command", [["draw"], ["resume"], ["rerun"]])
def test_every_command_that_reads_a_run_refuses_it(stranger, capsys, command):
    _, path = written(stranger, "a callback")
    (stranger / "checkpoints").mkdir()
    (stranger / "checkpoints" / "best-0.ckpt").touch()
    assert main([*command, str(path.parent)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.yaml: trainer.callbacks names a class or callable that is not known" in line
    assert "stranger_module" not in sys.modules


def test_what_the_user_ran_is_the_users_own(ring_shop, tmp_path, monkeypatch):
    """Moved, too; a changed file is a stranger's again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_the_user.py").write_text(
        "from lightning.pytorch.callbacks import Callback\nclass Mine(Callback):\n    pass\n"
    )
    words = [
        "fit",
        "--model",
        "llm4sbr.SBRModule",
        "--model.backbone",
        "SRGNN",
        "--data",
        "SessionDataModule",
    ]
    words += ["--data.data_dir", str(ring_shop), "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    words += ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.callbacks+", "of_the_user.Mine"]
    assert main(words) == 0
    (config,) = tmp_path.glob("logs/*/version_0/config.yaml")
    moved = tmp_path / "moved.yaml"
    shutil.copy(config, moved)
    check_words(["--config", str(moved)])
    moved.write_text(moved.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match=r"of_the_user\.Mine"):
        check_words(["--config", str(moved)])


def test_earlier_class_paths_are_today_s():
    assert set(MOVED.values()) <= known_paths()
    old = {"logger": [{"class_path": "llm4sbr.loggers.WandbLogger", "init_args": {"project": "p"}}]}
    assert renamed(old)["logger"][0]["class_path"] == "llm4sbr.callbacks.wandb_logger.WandbLogger"
