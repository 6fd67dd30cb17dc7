"""An output of an earlier run that a run did not replace is named, so that it does not pass for a new one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path


class Outputs:
    """Files that a run is going to replace.

    Args:
        paths: The files; None is left out.
    """

    def __init__(self, *paths: str | Path | None) -> None:
        self._before = {Path(path): _stamp(Path(path)) for path in paths if path is not None}

    def stale(self) -> list[Path]:
        """The files that existed before and have not been replaced."""
        return [path for path, stamp in self._before.items() if stamp is not None and _stamp(path) == stamp]

    def warn_stale(self) -> None:
        """Warn about each file that has not been replaced."""
        for path in self.stale():
            written = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M:%S")
            warnings.warn(
                f"{path} was not written: it is still the file of an earlier run, of {written}",
                UserWarning,
                stacklevel=3,
            )


@contextmanager
def replacing(*paths: str | Path | None) -> Iterator[None]:
    """Warn about files of an earlier run that the block did not replace, also if it raises.

    Args:
        paths: Files that the block writes; None is left out.
    """
    outputs = Outputs(*paths)
    try:
        yield
    finally:
        outputs.warn_stale()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Identity of a file's content; a file that is replaced by a rename gets another one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
