"""Runs a script of `experiments/` as a person does: in a process of its own, from a folder of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def _done(cwd: Path, script: str, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXPERIMENTS / script), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def run(cwd: Path, script: str, *words: str) -> str:
    """What the script prints; it must succeed."""
    done = _done(cwd, script, words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(cwd: Path, script: str, *words: str) -> str:
    """What the script complains of; it must fail."""
    done = _done(cwd, script, words)
    assert done.returncode != 0
    return done.stderr


def start(cwd: Path, script: str, *words: str) -> subprocess.Popen[str]:
    """The script, begun."""
    command = [sys.executable, str(EXPERIMENTS / script), *words]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def load(name: str) -> ModuleType:
    """A script as a module; it finds those beside it, as when Python runs it."""
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(EXPERIMENTS))
