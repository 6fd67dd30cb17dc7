"""Commands, scripts and code in processes of their own, as a person runs them, from a folder of their own.

They are forked (`forks`). The project's root comes last on the path: the installed llm4sbr is tested, and not
the checkout.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from forks import Fork

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


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
        if isinstance(what, Path):
            command = [str(what)]
        else:
            command = ["-m" if what.replace(".", "").isidentifier() else "-c", what]
        told = os.environ if environment is None else environment
        self.process = Fork([*command, *words], cwd, told, self.said / "1", self.said / "2")

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
