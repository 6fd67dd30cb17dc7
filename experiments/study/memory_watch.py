"""MemoryWatch: the resident memory of a process while it works."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import numpy as np
import psutil


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def peak() -> float:
    """Peak resident memory of this process in MiB; that of a parent is not part of it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return found / 1024


class MemoryWatch:
    """Reads the memory of a process ten times a second, inside a ``with`` block.

    Args:
        pid: Number of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seen: list[float] = []  # MiB

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def grown(self, begin: float, end: float) -> float:
        """Growth in MiB between two moments.

        Args:
            begin: Share of the time; the memory then is the median of the following tenth.
            end: Share of the time; the memory then is the median of the tenth before.

        >>> watch = MemoryWatch(0)
        >>> watch.seen = [100.0, 150.0, *[160.0] * 18]
        >>> watch.grown(0, 1), watch.grown(0.5, 1)
        (35.0, 0.0)
        """
        tenth = max(1, len(self.seen) // 10)
        first, last = int(begin * len(self.seen)), int(end * len(self.seen))
        before, after = self.seen[first : first + tenth], self.seen[max(0, last - tenth) : last]
        return float(np.median(after) - np.median(before))

    def _watch(self) -> None:
        while True:
            self.seen.append(resident(self._pid))
            if self._ended.wait(0.1):
                return
