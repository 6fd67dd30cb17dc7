"""Runs a script of `experiments/` as a person does: in a process of its own, from a folder of its own."""

import subprocess
import sys
from pathlib import Path

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
