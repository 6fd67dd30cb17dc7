"""Runs a script of `experiments/` as a person does: in a process of its own, from a folder of its own.

The processes are forked from one that has imported what they all need, which would be most of their time.
"""

import importlib.util
import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["lightning.pytorch", "llm4sbr.runs.trainer_cli", "llm4sbr.datamodules"])


def _in_the_process(
    cwd: Path, script: Path, words: tuple[str, ...], said: str, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the caller's, and not that of the first who started a script
    for stream in (1, 2):
        with open(f"{said}/{stream}", "wb") as told:
            os.dup2(told.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.stdout.flush()


class Started:
    """A script that runs."""

    def __init__(self, cwd: Path, script: Path, *words: str) -> None:
        self._said = tempfile.TemporaryDirectory()
        given = (cwd, script, words, self._said.name, dict(os.environ))
        self.process = FORKED.Process(target=_in_the_process, args=given)
        self.process.start()

    def wait(self, timeout: float = 300) -> tuple[int, str, str]:
        """Its status, below 0 for a signal, and what it said on stdout and stderr."""
        self.process.join(timeout)
        said, complained = (Path(self._said.name, stream).read_text() for stream in "12")
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(said + complained)
        return self.process.exitcode, said, complained


def start(cwd: Path, script: str | Path, *words: str) -> Started:
    """The script, begun."""
    return Started(cwd, EXPERIMENTS / script, *words)


def run(cwd: Path, script: str | Path, *words: str) -> str:
    """What the script prints; it must succeed."""
    status, said, complained = start(cwd, script, *words).wait()
    assert status == 0, complained
    return said


def fails(cwd: Path, script: str | Path, *words: str) -> str:
    """What the script complains of; it must fail."""
    status, _, complained = start(cwd, script, *words).wait()
    assert status == 1, complained
    return complained


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
