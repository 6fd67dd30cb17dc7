"""Commands, scripts and code in processes of their own, as a person runs them, from a folder of their own.

The processes are forked from one that has imported what they all need, which would be most of their time.
The project's root comes last on the path: the installed llm4sbr is tested, and not the checkout.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["imported_once"])


def _ensure_server() -> None:
    """Start the process that is forked, so that its path does not begin with its folder, the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")
        helpers = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), helpers))))
        forkserver.ensure_running()


def _in_the_process(
    cwd: Path, what: str | Path, words: tuple[str, ...], said: str, environment: dict[str, str]
) -> None:
    os.setsid()  # its children can be killed with it
    os.environ.clear()
    os.environ.update(environment)  # the caller's, and not that of the first who started a command
    for stream in (1, 2):
        with open(f"{said}/{stream}", "wb") as told:
            os.dup2(told.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path.append(str(EXPERIMENTS.parent))
    sys.argv = [str(what), *words]
    try:
        if isinstance(what, Path):
            sys.path.insert(0, str(what.parent))  # as Python does
            runpy.run_path(str(what), run_name="__main__")
        elif what.isidentifier():
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<code>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # `multiprocessing` leaves them out
        sys.stdout.flush()


class Started:
    """A process that runs.

    Args:
        cwd: Its folder.
        what: Name of a module, path of a script, or code.
        words: Its arguments.
        environment: Its environment; by default the caller's.
    """

    def __init__(
        self, cwd: Path, what: str | Path, *words: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.said = Path(self._folder.name)  # its stdout is file 1, its stderr file 2
        for stream in "12":
            (self.said / stream).touch()
        told = dict(os.environ if environment is None else environment)
        given = (cwd, what, words, self._folder.name, told)
        _ensure_server()
        self.process = FORKED.Process(target=_in_the_process, args=given)
        self.process.start()

    def wait(self, timeout: float = 300) -> tuple[int, str, str]:
        """Its status, below 0 for a signal, and what it said on stdout and stderr."""
        self.process.join(timeout)
        said, complained = ((self.said / stream).read_text() for stream in "12")
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(said + complained)
        return self.process.exitcode, said, complained


def start(cwd: Path, *words: str) -> Started:
    """`python -m experiments` with these words, begun."""
    return Started(cwd, "experiments", *words)


def start_script(cwd: Path, script: str, *words: str) -> Started:
    """A script of `experiments/`, begun."""
    return Started(cwd, EXPERIMENTS / script, *words)


def run(cwd: Path, *words: str) -> str:
    """What the command prints; it must succeed."""
    return succeeded(start(cwd, *words))


def run_script(cwd: Path, script: str, *words: str) -> str:
    """What a script of `experiments/` prints; it must succeed."""
    return succeeded(start_script(cwd, script, *words))


def succeeded(started: Started) -> str:
    """What a process prints; it must succeed."""
    status, said, complained = started.wait()
    assert status == 0, said + complained
    return said


def fails(cwd: Path, *words: str) -> str:
    """What the command complains of; it must fail."""
    status, _, complained = start(cwd, *words).wait()
    assert status == 1, complained
    return complained
