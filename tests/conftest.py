"""Helpers that several folders of tests share, as fixtures: a plain import would put tests/ on sys.path."""

import os

# Before torch: what is tested is small, and two threads on a busy machine spend their time waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "views" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def stubs() -> ModuleType:
    """Stand-ins for a data module, an engine and an encoder."""
    return _module("views_stubs")


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    """Makes language models of two random layers."""
    return _module("tiny_llm")


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
