"""Every example in a docstring, of the package and of the experiments, prints what it says."""

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import experiments
import llm4sbr

SCRIPTS = Path(experiments.__file__).parent / "gpu"  # no package: they import each other by their bare names


def sources():
    """Names of all modules, and their files."""
    for package in (llm4sbr, experiments):
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name in (package.__name__, *(module.name for module in inside)):
            yield name, Path(importlib.util.find_spec(name).origin)
    yield from ((path.stem, path) for path in sorted(SCRIPTS.glob("*.py")))


@pytest.mark.parametrize("name", [name for name, path in sources() if ">>> " in path.read_text("utf-8")])
def test_examples_run(name, monkeypatch):
    """Seen to fail with another number in an example of the package, of a plug-in room and of a script."""
    monkeypatch.syspath_prepend(SCRIPTS)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_all_rooms_are_searched():
    rooms = {
        "llm4sbr",
        "llm4sbr.backbones",
        "llm4sbr.datamodules",
        "llm4sbr.nn.heads",
        "experiments.study",
        "",
    }
    assert rooms <= {name.rpartition(".")[0] for name, _ in sources()}
