"""Processes that share a GPU: started quickly, stopped in good order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

PATIENCE = 60.0  # seconds for what a process does not leave half done
STOPPED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)  # statuses of a process that ended or was stopped
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["inference", "experiments.study.ledger"])  # imports are most of a short life


def run(target: Callable[..., None], given: Sequence[tuple[Any, ...]], seconds: float) -> list[int]:
    """Call a function in a process for each of some arguments; returns their exit statuses.

    Args:
        target: Function of a module.
        given: Arguments of each call.
        seconds: Time limit; then the processes get SIGTERM, and after `PATIENCE` seconds SIGKILL.
    """
    ends = time.monotonic() + seconds
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, len(given)))
    started = [_FORKED.Process(target=_begin, args=(threads, target, one)) for one in given]
    for one in started:
        one.start()
    try:
        while any(one.is_alive() for one in started) and time.monotonic() < ends:
            time.sleep(0.2)
    finally:
        for one in started:
            if one.is_alive():
                one.terminate()
        stop = time.monotonic() + PATIENCE
        for one in started:
            one.join(max(0.1, stop - time.monotonic()))
            if one.is_alive():
                one.kill()
                one.join()
    return [int(one.exitcode or 0) for one in started]


def _begin(threads: int, target: Callable[..., None], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    target(*given)


def command(words: list[str], log: str) -> None:
    """Run a command of the experiments, its output appended to a file.

    Args:
        words: Words after ``python -m experiments``.
        log: File for the output.
    """
    with open(log, "ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    from experiments.__main__ import main

    try:
        sys.exit(main(words))
    finally:
        sys.stdout.flush()
