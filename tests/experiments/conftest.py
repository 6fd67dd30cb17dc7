"""A checkout in which the commands of README and of the launch scripts can be run."""

import os
import sys
from pathlib import Path

import polars as pl
import pytest
from forks import stand_ins
from letters import Wide, title_views
from scripts import EXPERIMENTS

from llm4sbr.datamodules import AmazonBeauty

BEAUTY = EXPERIMENTS.parent.parent / "shared" / "data" / "beauty"


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A checkout beside a tenth of Beauty, in which stage 1 has run with a stand-in for the encoder."""
    if not BEAUTY.is_dir():
        pytest.skip("the Beauty data are not in ../shared/data")
    root = tmp_path_factory.mktemp("work") / "main"
    root.mkdir()
    (root / "experiments").symlink_to(EXPERIMENTS)
    shop = root.parent / "shared" / "data" / "beauty"
    shop.mkdir(parents=True)
    events = pl.read_csv(BEAUTY / "events.csv").filter(pl.col("session_id") % 10 == 0)
    events.write_csv(shop / "events.csv")
    pl.read_csv(BEAUTY / "items.csv").join(events, "item_id", "semi").write_csv(shop / "items.csv")
    data = AmazonBeauty(str(shop), cache_dir=str(root / "cache"))
    title_views(data, root / "views" / "beauty", Wide())
    return root


@pytest.fixture
def environment(root):
    """For a command in that checkout: the console scripts that are tested, forked, and what they prepare."""
    here = Path(sys.executable).parent
    return {"PATH": f"{stand_ins()}:{here}:{os.environ['PATH']}", "LLM4SBR_CACHE": str(root / "cache")}
