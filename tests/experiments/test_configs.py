"""Configurations do not rot: each is parsed, comes back as it was printed, and is spelt right."""

import pytest
import yaml
from letters import Letters
from scripts import EXPERIMENTS
from shops import PARTS, write_shop

from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.views import infer_views
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore

BASE = ["--config", str(EXPERIMENTS / "base.yaml")]


def names(folder):
    return sorted((EXPERIMENTS / folder).glob("*.yaml"))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_shop(tmp_path / "shop", clicks=lambda session: 2 + session % 3, parts=PARTS)


def printed(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return told.out


def complaint(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("path", names("data"), ids=lambda path: path.stem)
@pytest.mark.parametrize("overlay", [[], ["--config", str(EXPERIMENTS / "wandb.yaml")]], ids=["csv", "wandb"])
def test_every_data_file_is_parsed_and_comes_back_as_it_was_printed(path, overlay, capsys, tmp_path):
    first = printed([*BASE, *overlay, "--data", str(path), "--model.backbone", "SRGNN"], capsys)
    again = tmp_path / "printed.yaml"
    again.write_text(first)
    assert yaml.safe_load(printed(["--config", str(again)], capsys)) == yaml.safe_load(first)
    assert yaml.safe_load(first)["data"]["class_path"].endswith(
        yaml.safe_load(path.read_text())["class_path"]
    )


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--model.fusoin=gate", "'fusion'"),
        ("--model.backbone.init_args.embeding_dim=8", "'embedding_dim'"),
        ("--model.backbone=SRGN", "'SRGNN'"),
        ("--data.bucketz=3", "'bucket'"),
        ("--views.fall_back=mask", "'fallback'"),
        ("--trainer.max_epoch=3", "'max_epochs'"),
        ("trainer: {max_epoch: 3}", "'max_epochs'"),
        ("model: {class_path: llm4sbr.LLM4SBRWrapper, init_args: {view_dropuot: 0.3}}", "'view_dropout'"),
    ],
)
def test_a_misspelt_key_is_an_error_that_names_the_right_one(wrong, right, capsys, tmp_path):
    """On the command line and in a file. Seen to fail without the suggestion."""
    words = [wrong]
    if not wrong.startswith("--"):
        file = tmp_path / "wrong.yaml"
        file.write_text(wrong)
        words = ["--config", str(file)]
    data = ["--data", str(EXPERIMENTS / "data" / "beauty.yaml"), "--model.backbone", "SRGNN"]
    assert f"did you mean {right}" in complaint([*BASE, *data, *words], capsys)


def test_r_can_be_chosen_after_stage_one(shop, stubs, capsys):
    """The nearest two of five are what localisation with r = 2 finds. Seen to fail with the last two."""
    data = SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(shop / "cache"))
    tables = {}
    for r in (2, 5):
        with ViewStore(shop / f"views-{r}") as store:
            infer_views(data, store, encoder=Letters(), engine=stubs.StubEngine(), r=r, progress=False)
            tables[r] = load_view_table(store, data, r=2).table
            with pytest.raises(ValueError, match=f"r between 1 and {r}"):
                load_view_table(store, data, r=6)
    batch = next(iter(data.test_dataloader()))
    for mine, theirs in zip(tables[2](batch), tables[5](batch), strict=True):
        assert (mine == theirs).all()
    words = ["--model.backbone", "SRGNN", "--data", str(shop / "data.yaml"), "--model.text_dim", "8"]
    assert main(["fit", *BASE, *words, "--views.store", str(shop / "views-5"), "--views.r", "6"]) == 1
    assert "r between 1 and 5" in capsys.readouterr().err
