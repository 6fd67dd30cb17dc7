"""A random walk of command lines and of readers: each ends well or in one line, never in a traceback.

LLM4SBR_WALK=3600 walks for about an hour; without it each walk takes some seconds.
"""

import contextlib
import io
import os
import re
import warnings
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from shops import PARTS, write_shop

from llm4sbr.cli.commands import COMMANDS
from llm4sbr.cli.main import main
from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import AmazonBeauty, AuthorPickles, RecBoleAtomic, SessionDataModule, SplitBy
from llm4sbr.views.inference.options import Localisation, LocalModel

SECONDS = float(os.environ.get("LLM4SBR_WALK", "0"))
ROOT = Path(__file__).parents[2]


def walk(steps):
    """Settings of a walk of some steps, or of many if a time is given."""
    return settings(
        max_examples=max(steps, int(steps * SECONDS / 60)),
        deadline=None,
        derandomize=not SECONDS,
        phases=[Phase.generate],  # shrinking would take longer than the walk
        suppress_health_check=list(HealthCheck),
    )


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(),
    st.sampled_from(["os.system", "SRGNN", "", "null", "[", "a\0b", "\u202e", "-1", "1e999", "runs/x", "."]),
)  # fmt: skip
TREES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = [
    "--data", "--data.data_dir", "--data.batch_size", "--data.split.by", "--data.split.val_ratio", "--model",
    "--model.backbone", "--model.backbone.embedding_dim", "--model.heads+", "--model.ks", "--model.top_k",
    "--model.optimizer", "--model.optimizer.lr", "--model.lr_scheduler", "--model.scorer", "--views.store",
    "--views.spec", "--views.r", "--trainer.max_steps", "--trainer.accelerator", "--trainer.devices",
    "--trainer.logger", "--trainer.callbacks+", "--trainer.callbacks", "--optimizer", "--config",
    "--ckpt_path", "--output", "--out", "--stores", "--store", "--limit", "--source", "--server.base_url",
    "--sessions.budget", "--sessions.bare_run", "--localise.r", "--split", "--format", "--max_epochs",
    "--seed_everything", "--resume.every_n_steps", "--nonsense",
]  # fmt: skip
VALUES = [
    "SessionDataModule", "shop", "shop/data.yaml", "shop/events.csv", "bad.yaml", "SRGNN", "GRU4Rec",
    "0", "-1", "3", "nan", "inf",
    "1e99", "", "null", "[]", "{}", "[1,[2]]", "{a: 1}", "os.system", "llm4sbr.SBRModule", "none.ckpt",
    "/dev/null", "shop", ".", "runs", "a\0b", "\udc80", "\x1b[31m", "http://[", "http://x:y",
    "true", "x" * 500,
    "CSVLogger", "EarlyStopping", "Adam", "CosineToEnd", "ratio", "column", "svg", "--help",
]  # fmt: skip
PARTS_OF_A_RUN = ["model", "data", "trainer", "views", "seed_everything", "ckpt_path", "x"]
START = [
    "--trainer.fast_dev_run",
    "1",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.accelerator",
    "cpu",
]
FIT = ["--config", str(ROOT / "experiments" / "base.yaml"), "--data", "shop/data.yaml", *START]
FIT += ["--model.backbone", "SRGNN", "--model.backbone.embedding_dim", "4"]

STAGE_1 = {
    "views infer": ["--data", "shop/data.yaml", "--out", "store"],
    "tune-llm": ["--data", "shop/data.yaml"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shop(Path("shop"), sessions=20, parts=PARTS)
    return tmp_path


@contextlib.contextmanager
def ignored():
    """A block whose warnings do not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ends_well(words):
    """Run a command line; a stack or a status that nobody foresaw is a failure."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    lines = [line for line in told.getvalue().splitlines() if line.startswith("llm4sbr: error: ")]
    assert status in (0, 1, 2, None), (words, status)
    assert "Traceback" not in told.getvalue(), words
    assert len(lines) == (status in (1, 2)), (words, lines)
    assert "--debug shows the stack" not in told.getvalue(), (words, lines)  # an error that nobody foresaw


@walk(60)
@given(
    name=st.sampled_from(sorted(set(COMMANDS) - {"demo"})),
    whole=st.booleans(),
    pairs=st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from(VALUES)), max_size=3),
)
def test_command_lines(place_of_the_walk, name, whole, pairs):
    start = (
        (FIT if name in ("fit", "validate", "test", "predict") else STAGE_1.get(name, [])) if whole else []
    )
    ends_well([*name.split(), *start, *(word for pair in pairs for word in pair)])


@walk(10)
@given(
    part=st.sampled_from(["model", "data", "trainer", "views", "seed_everything", "ckpt_path", "x"]),
    tree=TREES,
)
def test_configurations(place_of_the_walk, part, tree):
    Path("bad.yaml").write_text(yaml.safe_dump({part: tree}), encoding="utf-8", errors="surrogatepass")
    ends_well(["fit", *FIT, "--config", "bad.yaml"])
    run = Path("run")
    run.mkdir(exist_ok=True)
    config = {"model": {"class_path": "SBRModule"}, "data": {"class_path": "SessionDataModule"}, part: tree}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8", errors="surrogatepass")
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "best-0.ckpt").write_bytes(b"x")
    for command in ("draw", "resume", "rerun"):
        ends_well([command, "run"])


@walk(60)
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_readers_of_files(place_of_the_walk, content):
    """Any bytes under every name that a reader takes."""
    folder = place_of_the_walk / "bytes"
    folder.mkdir(exist_ok=True)
    names = ["events.csv", "items.csv", "events.parquet", "events.csv.gz", "x.inter", "x.item", "train.txt"]
    for name in [*names, "test.txt", "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"]:
        (folder / name).write_bytes(content)
    for made in (
        lambda: SessionDataModule(str(folder)),
        lambda: SessionDataModule(str(folder), events="events.parquet"),
        lambda: SessionDataModule(str(folder), events="events.csv.gz"),
        lambda: RecBoleAtomic(str(folder)),
        lambda: AuthorPickles(str(folder)),
        lambda: AmazonBeauty(str(folder), events="none.csv"),
    ):
        with ignored(), pytest.raises(InputError, match=re.escape(str(folder))):
            made().prepare_data()


COLUMNS = {
    "durations": [timedelta(seconds=1)], "lists": [[1]], "structs": [{"a": 1}], "bytes": [b"x"],
    "booleans": [True], "nothing": [None], "nan": [float("nan")], "infinity": [float("inf")],
    "large": [2**63 - 1], "negative": [-5], "empty": [""],
}  # fmt: skip


@pytest.mark.parametrize("column", ["session_id", "item_id", "timestamp", "split", "title", "extra"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_odd_types(place, column, kind):
    """In Parquet, which keeps them: durations, lists, structs."""
    events, items = pl.read_csv("shop/events.csv"), pl.read_csv("shop/items.csv")
    odd = pl.Series(column, COLUMNS[kind] * max(len(events), len(items)))
    if column in ("title", "extra"):
        items = pl.concat([items.with_columns(odd[: len(items)])] * 2)
    else:
        events = events.with_columns(odd[: len(events)])
    events.write_parquet("events.parquet")
    items.write_parquet("items.parquet")
    data = SessionDataModule(
        ".", events="events.parquet", items="items.parquet",
        split=SplitBy(by="column" if column == "split" else "temporal"),
    )  # fmt: skip
    try:
        with ignored():
            data.prepare_data()
    except InputError as error:
        assert error.path.name in ("events.parquet", "items.parquet")  # noqa: PT017
    else:
        assert data.num_items > 0


@pytest.fixture(scope="module")
def place_of_the_walk(tmp_path_factory, stubs):
    """One folder for all steps of the walk, which hypothesis does not renew; answers take no time."""
    folder, before = tmp_path_factory.mktemp("walk"), Path.cwd()
    os.chdir(folder)
    write_shop(Path("shop"), sessions=20, parts=PARTS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalModel, "engine", lambda *_: stubs.StubEngine())
        patched.setattr(Localisation, "text_encoder", lambda *_: stubs.StubEncoder())
        yield folder
    os.chdir(before)
