"""A virtual environment that holds what docs/serving.md names, all that this requires, and llm4sbr."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Iterable
from pathlib import Path

from experiments.benchmarks.bare_size import installed, needed


class BareEnvironment:
    """Links to the distributions of this environment; nothing else can be imported there.

    Args:
        folder: Folder of the environment.
        requirements: Requirements that are installed there, with all that they require.
    """

    def __init__(self, folder: Path, requirements: Iterable[str]) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        for one in [*needed(requirements), installed("llm4sbr")]:
            for name in {entry.parts[0] for entry in one.files or ()} - {"..", "__pycache__"}:
                if not (site / name).exists():  # several distributions may share a folder
                    (site / name).symlink_to(one.locate_file(name))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run its Python; a warning is an error."""
        return subprocess.run(
            [str(self.python), "-P", *words], capture_output=True, text=True, timeout=120, check=False
        )
