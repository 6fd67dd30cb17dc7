"""Runs `python -m experiments` as a person does: in a process of its own, from a folder of its own.

The processes are forked from one that has imported what they all need, which would be most of their time.
The project's root comes last on the path: the installed llm4sbr is tested, and not the checkout.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["llm4sbr.datamodules", "experiments.study.ledger", "experiments.study.groups"])


def _in_the_process(
    cwd: Path, script: Path | None, words: tuple[str, ...], said: str, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the caller's, and not that of the first who started a command
    for stream in (1, 2):
        with open(f"{said}/{stream}", "wb") as told:
            os.dup2(told.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    sys.path.append(str(EXPERIMENTS.parent))
    sys.argv = [str(script or EXPERIMENTS / "__main__.py"), *words]
    try:
        if script is None:
            runpy.run_module("experiments", run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(script.parent))  # as Python does
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.stdout.flush()


class Started:
    """A command that runs."""

    def __init__(self, cwd: Path, script: Path | None, *words: str) -> None:
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


def start(cwd: Path, *words: str) -> Started:
    """`python -m experiments` with these words, begun."""
    return Started(cwd, None, *words)


def start_script(cwd: Path, script: str, *words: str) -> Started:
    """A script of `experiments/`, begun."""
    return Started(cwd, EXPERIMENTS / script, *words)


def run(cwd: Path, *words: str) -> str:
    """What the command prints; it must succeed."""
    return _succeeded(start(cwd, *words))


def run_script(cwd: Path, script: str, *words: str) -> str:
    """What a script of `experiments/` prints; it must succeed."""
    return _succeeded(start_script(cwd, script, *words))


def _succeeded(started: Started) -> str:
    status, said, complained = started.wait()
    assert status == 0, complained
    return said


def fails(cwd: Path, *words: str) -> str:
    """What the command complains of; it must fail."""
    status, _, complained = start(cwd, *words).wait()
    assert status == 1, complained
    return complained
