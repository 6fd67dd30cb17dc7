import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def stubs() -> ModuleType:
    """The stand-ins, as a module (a plain import would put the tests' folder on sys.path)."""
    spec = importlib.util.spec_from_file_location("views_stubs", Path(__file__).with_name("views_stubs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["views_stubs"] = module
    spec.loader.exec_module(module)
    return module
