"""An output that was not written leaves no older one in its place without a word."""

import re
import warnings

import pytest
from lightning.pytorch import Trainer
from plain import plain_bare
from shops import write_shop

from llm4sbr import InputError
from llm4sbr.backbones import SRGNN
from llm4sbr.callbacks import RecommendationWriter
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.outputs import replacing
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import ScoreHead
from llm4sbr.report.view_quality.command import views_report


def test_a_file_that_is_not_replaced_is_named_and_kept(tmp_path):
    old, new, other = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "other.json"
    for path in (old, new):
        write_text(path, "{}")
    with pytest.warns(UserWarning, match="not written") as told, replacing(old, new, other, None):
        write_text(new, "{}")  # the same content is written again
    assert [re.search(r"\w+\.json", str(one.message))[0] for one in told] == ["old.json"]
    assert old.read_text() == "{}"


def predict(tmp_path, part, head=None):
    folder = write_shop(tmp_path / "shop", parts=("train", "train", part))
    data = SessionDataModule(str(folder), split=SplitBy(by="column"))
    writer = RecommendationWriter(str(tmp_path / "next.parquet"))
    running = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[writer],
        barebones=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    running.predict(plain_bare(SRGNN(9, 8), heads=[head] if head else []), data)


def test_a_prediction_without_sessions_is_an_error(tmp_path):
    """Seen to fail without `teardown`: exit status 0 beside the file of an earlier run."""
    (tmp_path / "next.parquet").write_bytes(b"of yesterday")
    with pytest.raises(InputError, match=r"no session to recommend for.*of an earlier run"):
        predict(tmp_path, "train")
    assert (tmp_path / "next.parquet").read_bytes() == b"of yesterday"


def test_a_prediction_that_fails_names_the_older_file(tmp_path):
    class Broken(ScoreHead):
        def forward(self, scores, session, batch):
            raise InputError("broken")

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(InputError, match="broken"):
            predict(tmp_path, "test", Broken())  # there is no older file
    predict(tmp_path, "test")
    with pytest.warns(UserWarning, match="still the file of an earlier run"), pytest.raises(InputError):
        predict(tmp_path, "test", Broken())


def test_a_report_that_fails_names_the_older_page(tmp_path):
    """Seen to fail without `replacing`."""
    folder = write_shop(tmp_path / "shop")
    page = write_text(tmp_path / "report.html", "<p>of yesterday</p>")
    data = SessionDataModule(str(folder), split=SplitBy(by="column"))
    with pytest.warns(UserWarning, match=r"report\.html was not written"), pytest.raises(InputError):
        views_report(data, str(tmp_path / "no-store"), html=str(page))


def test_figures_of_an_earlier_run_are_named(tmp_path):
    """Seen to fail without the warning of `save`."""
    from matplotlib.figure import Figure

    from llm4sbr.report.figures.figures import save

    save(tmp_path, {"length": Figure(), "gates": Figure()}, {})
    with pytest.warns(UserWarning, match=r"figures of an earlier run: gates\.png"):
        save(tmp_path, {"length": Figure()}, {})
