"""Fixtures that several folders of tests share; what they are made of lies in `helpers`."""

import os

# Before torch: what is tested is small, and two threads on a busy machine spend their time waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import tiny_llm as tiny_llm_module
import views_stubs


@pytest.fixture(scope="session")
def stubs() -> ModuleType:
    """Stand-ins for a data module, an engine and an encoder."""
    return views_stubs


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    """Makes language models of two random layers."""
    return tiny_llm_module


@pytest.fixture(scope="session")
def tiny_llm(tiny_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of such a model with a tokenizer of its own: exactness needs no wisdom."""
    return str(tiny_module.make(tmp_path_factory.mktemp("tiny-llm")))


@pytest.fixture(scope="session")
def forked(stubs: ModuleType) -> Iterator[Any]:
    """Starts runs of stage 1 as processes of their own, quickly."""
    server = stubs.Forked()
    yield server
    server.close()
