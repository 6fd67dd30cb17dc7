"""Whatever logs a run, the numbers are the same; what Weights & Biases keeps is read back from its file."""

import json
import math
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
import wandb
import wandb_file
import yaml
from letters import Letters
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from scripts import EXPERIMENTS, Started, succeeded
from shops import PARTS, write_shop
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llm4sbr.callbacks.wandb_logger import WandbLogger
from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.views import infer_views
from llm4sbr.views.store import ViewStore

SHORT = [
    "--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
    "--model.text_dim", "8", "--model.backbone", "SRGNN",
]  # fmt: skip
BOARD = "lightning.pytorch.loggers.TensorBoardLogger"
TENSORBOARD = {"class_path": BOARD, "init_args": {"save_dir": "runs", "name": "board"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory, stubs):
    """A shop with an LLM's views, and nobody logged in."""
    root = tmp_path_factory.mktemp("tracked")
    shop = write_shop(root / "shop", clicks=lambda s: 2 + s % 3, parts=PARTS)
    data = SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(shop / "cache"))
    with ViewStore(root / "views") as store:
        infer_views(data, store, encoder=Letters(), engine=stubs.StubEngine(), progress=False)
    (root / "home").mkdir()
    return root


@pytest.fixture
def no_login(root, monkeypatch):
    """Neither a key nor a choice of mode, and no run of another test."""
    for name in list(os.environ):
        if name.startswith("WANDB"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setenv("NETRC", str(root / "home" / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(root)
    yield
    wandb.finish()
    wandb.teardown()


def fit(root, *more):
    base = ["--config", str(EXPERIMENTS / "base.yaml"), "--config", str(EXPERIMENTS / "wandb.yaml")]
    data = ["--data", str(root / "shop" / "data.yaml"), "--views.store", "views"]
    assert main(["fit", *base, *more, *data, *SHORT]) == 0
    wandb.finish()


@pytest.fixture
def tracked(root, no_login):
    """The W&B file and the folder of a run with three loggers, made once."""
    if not (root / "runs").exists():
        loggers = yaml.safe_load((EXPERIMENTS / "wandb.yaml").read_text())["trainer"]["logger"]
        (root / "three.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [*loggers, TENSORBOARD]}}))
        with pytest.warns(UserWarning, match="kept offline"):
            fit(root, "--config", "three.yaml", "--trainer.callbacks+", "llm4sbr.callbacks.Pictures")
    (file,) = (root / "runs").rglob("*.wandb")
    return file, root / "runs" / "llm4sbr" / "version_0"


def test_three_loggers_have_the_same_numbers(tracked, root):
    """Every one that is logged, in all epochs, learning rate, gates and losses among them."""
    file, folder = tracked
    table = pl.read_csv(folder / "metrics.csv")
    names = [name for name in table.columns if "/" in name]
    losses = {f"train/{name}" for name in ("loss", "rec_loss", "alignment", "uniformity")}
    wanted = losses | {"train/lr", "train/gate_0", "train/gate_1", "throughput/examples_per_second"}
    assert wanted <= set(names)
    logged = wandb_file.history(file)
    board = EventAccumulator(str(root / "runs" / "board" / "version_0")).Reload()
    for name in names:
        here = table[name].drop_nulls().to_list()
        assert len(here) == 3
        assert here == pytest.approx([row[name] for row in logged if name in row], rel=1e-6)
        assert here == pytest.approx([event.value for event in board.Scalars(name)], rel=1e-6)
    assert table["train/lr"].drop_nulls().to_list() == pytest.approx(
        [6e-3 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]  # a step an epoch
    )
    pictures = [f"pictures/{name}" for name in ("gates", "length", "spaces")]
    assert sorted(board.Tags()["images"]) == pictures
    kept = wandb_file.summary(file)
    assert all(kept[f"{name}/_type"] == "images/separated" for name in pictures)


def test_the_summary_is_the_chosen_epochs(tracked):
    file, folder = tracked
    chosen = json.loads((folder / "summary.json").read_text())
    kept = wandb_file.summary(file)
    assert all(kept[name] == pytest.approx(value) for name, value in chosen.items())


def test_the_table_of_samples_is_what_the_run_wrote(tracked):
    file, folder = tracked
    samples = json.loads((folder / "samples.json").read_text())
    kept = wandb_file.summary(file)
    table = json.loads((file.parent / "files" / kept["samples/path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == len(samples) == kept["samples/nrows"]
    for row, sample in zip(rows, samples, strict=True):
        assert row["clicks"] == " → ".join(sample["clicks"])
        assert row["next"] == sample["next"]
        assert row["rank"] == sample["rank"]
        assert row["recommendations"].split("\n")[0] == sample["recommendations"][0]["title"]
        assert row["long_term intent"] == sample["views"]["long_term"]["intent"]
        assert row["short_term share of the score"] == pytest.approx(sample["views"]["short_term"]["share"])


def test_checkpoint_and_view_store_are_artifacts(tracked, root, tmp_path):
    """The store's copy opens, and the checkpoint is the chosen one."""
    file, folder = tracked
    artifacts = {a.type: a for a in wandb_file.artifacts(file)}
    assert {"views", "model", "run_table"} <= set(artifacts)
    (best,) = (folder / "checkpoints").glob("best*.ckpt")
    (kept,) = artifacts["model"].manifest.contents
    assert Path(kept.local_path).read_bytes() == best.read_bytes()
    assert "best" in artifacts["model"].aliases
    with ViewStore(root / "views") as store:
        (spec,) = store.view_specs()
        assert artifacts["views"].name == f"views-{spec.fingerprint[:12]}"
        for part in artifacts["views"].manifest.contents:
            shutil.copy(part.local_path, tmp_path / part.path)
        with ViewStore(tmp_path) as copied:
            assert copied.view_specs() == [spec]
            assert copied.localised_keys(spec) == store.localised_keys(spec)
            assert (copied.titles(spec)[0] == store.titles(spec)[0]).all()


def test_a_resumed_run_is_the_same_run(tracked, root):
    """To Weights & Biases, too. Seen to fail without the id in the record."""
    file, folder = tracked
    copy = root / "runs" / "llm4sbr" / "version_7"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints")  # so that it begins anew
    assert main(["resume", str(copy)]) == 0
    wandb.finish()
    files = sorted((root / "runs").rglob("*.wandb"))
    assert len(files) == 2
    assert {path.stem for path in files} == {file.stem}
    for path in files:
        if path != file:
            shutil.rmtree(path.parent)
    shutil.rmtree(copy)


def test_another_failure_of_the_offline_run_is_told(no_login, monkeypatch):
    """Only a login or a network that is missing is made up for."""

    def broken(**_):
        raise wandb.errors.UsageError("no such option")

    monkeypatch.setattr(wandb, "init", broken)
    with pytest.warns(UserWarning, match="kept offline"), pytest.raises(wandb.errors.UsageError):
        _ = WandbLogger().experiment
    assert issubclass(WandbLogger, LightningWandbLogger)


def test_nothing_of_a_run_without_it_needs_wandb(root, tmp_path):
    """As where it is not installed. Seen to fail with an import at the head of `run_summary`."""
    hidden = "import sys; sys.modules['wandb'] = None; from llm4sbr.cli.main import main; sys.exit(main())"
    words = ["fit", "--config", EXPERIMENTS / "base.yaml", "--data", root / "shop" / "data.yaml", *SHORT]
    words += ["--views.store", root / "views", "--trainer.callbacks+", "llm4sbr.callbacks.Pictures"]
    succeeded(Started(tmp_path, hidden, *map(str, words)))
    folder = tmp_path / "runs" / "llm4sbr" / "version_0"
    for name in ("metrics.csv", "summary.json", "samples.json", "pictures/spaces.png", "record.json"):
        assert (folder / name).exists()
