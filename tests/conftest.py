"""Fixtures that several folders of tests share; what they are made of lies in `helpers`."""

import os
import sys

# Before torch: what is tested is small, and two threads on a busy machine spend their time waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# `experiments` is not installed. Last on the path: the installed llm4sbr is tested, not the checkout.
sys.path.append(str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def stubs() -> ModuleType:
    """Stand-ins for a data module, an engine and an encoder."""
    import views_stubs  # not at the head: the process that deals out the tests needs no torch

    return views_stubs


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    """Makes language models of two random layers."""
    import tiny_llm

    return tiny_llm


@pytest.fixture(scope="session")
def tiny_llm(tiny_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of such a model with a tokenizer of its own: exactness needs no wisdom."""
    return str(tiny_module.make(tmp_path_factory.mktemp("tiny-llm")))


@pytest.fixture
def forked(stubs: ModuleType) -> Any:
    """Starts runs of stage 1 as processes of their own, quickly."""
    return stubs.Stage1()


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache for each test; only the real LLM's converted weights are worth keeping in the user's own."""
    if request.node.get_closest_marker("llm") is None:
        monkeypatch.setenv("LLM4SBR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def ring_shop(tmp_path: Path) -> Path:
    """40 sessions around a ring of 12 items: after item k comes k + 1."""
    events = ["session_id,item_id,timestamp,split"]
    for session in range(40):
        for click in range(2 + session % 4):
            part = "test" if session % 5 == 4 else "train"
            events.append(f"s{session:03d},i{(session + click) % 12:02d},{100 * session + click},{part}")
    folder = tmp_path / "ring"
    folder.mkdir()
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    titles = [f'i{item:02d},"Bead {item}, <b>blue</b>"' for item in range(12)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(titles) + "\n")
    return folder
