"""A checkout in which the commands of README and of the launch scripts can be run."""

import os
import sys
from pathlib import Path

import pytest
from letters import Wide, title_views
from scripts import EXPERIMENTS
from views_stubs import StubEngine

from llm4sbr.datamodules import AmazonBeauty, KCore, SplitBy
from llm4sbr.views import Selection, infer_views
from llm4sbr.views.store import ViewStore

BEAUTY = EXPERIMENTS.parent.parent / "shared" / "data" / "beauty"


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A checkout in which stage 1 has run, with stand-ins for the LLM and the encoder."""
    if not BEAUTY.is_dir():
        pytest.skip("the Beauty data are not in ../shared/data")
    root = tmp_path_factory.mktemp("work") / "main"
    root.mkdir()
    (root.parent / "shared").symlink_to(BEAUTY.parent.parent)
    (root / "experiments").symlink_to(EXPERIMENTS)
    cache = str(root / "cache")
    whole = AmazonBeauty(str(BEAUTY), cache_dir=cache)
    core = AmazonBeauty(
        str(BEAUTY), cache_dir=cache, kcore=KCore(over="all", min_item_clicks=40, min_session_length=3),
        split=SplitBy(by="column", sample=0.3),
    )  # fmt: skip
    for name in ("beauty", "titles"):
        title_views(whole, root / "views" / name, Wide())
    with ViewStore(root / "views" / "core") as store:
        infer_views(
            core, store, encoder=Wide(), engine=StubEngine(), sessions=Selection(limit=40), progress=False
        )
    return root


@pytest.fixture
def environment(root):
    """For a command in that checkout: the console scripts that are tested, and what they prepare."""
    here = Path(sys.executable).parent
    return {"PATH": f"{here}:{os.environ['PATH']}", "LLM4SBR_CACHE": str(root / "cache")}
