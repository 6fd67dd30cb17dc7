from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import llm4sbr.datamodules


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(llm4sbr.datamodules.__path__)]
)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"llm4sbr.datamodules.{name}")).failed == 0
