"""Forks of a process that has imported what most commands need (`fork_server`), in place of new processes.

Imports would be most of the time of what tests start. All workers of a test run share one server. `stand_ins`
is a folder whose ``python`` and ``llm4sbr`` are forked as well, for what starts processes by itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from filelock import FileLock
from fork_server import LENGTH

HELPERS = Path(__file__).parent
CONSOLE_SCRIPTS = ("llm4sbr", "torchrun")


@cache
def stand_ins() -> Path:
    """Start the server unless another worker has; stays connected, for the server ends when nobody is."""
    name = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"forks-{name[:16]}"
    with FileLock(f"{folder}.lock"):
        try:
            _STAYS.append(_connected(folder))
        except OSError:
            folder.mkdir(exist_ok=True)
            (folder / "socket").unlink(missing_ok=True)
            _start(folder)
            _STAYS.append(_connected(folder))
    return folder


_STAYS: list[socket.socket] = []


def _connected(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(folder / "socket"))
    return connection


def _start(folder: Path) -> None:
    """Start the server, in whose path neither its folder comes first nor the checkout."""
    code = (HELPERS / "fork_instead.py").read_text()
    (folder / "python").write_text(f"#!{sys.executable} -IS\n{code}")
    (folder / "python").chmod(0o755)
    for name in CONSOLE_SCRIPTS:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("python")
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HELPERS))))
    server = subprocess.Popen(
        [sys.executable, "-P", str(HELPERS / "fork_server.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not (folder / "socket").exists():
        assert server.poll() is None, "the server of forks has not started"
        time.sleep(0.01)


class Fork:
    """A process that is forked from the server, as `multiprocessing.Process` tells of it.

    Args:
        words: What stands behind ``python``: ``-m`` and a module, ``-c`` and code, or a script; arguments.
        cwd: Its folder.
        environment: Its environment.
        out: File for its stdout.
        err: File for its stderr.
    """

    def __init__(
        self, words: list[str], cwd: Path, environment: Mapping[str, str], out: Path, err: Path
    ) -> None:
        asked = json.dumps({"words": words, "cwd": str(cwd), "environment": dict(environment)}).encode()
        self._connection = _connected(stand_ins())
        with open(os.devnull) as nothing, out.open("ab") as said, err.open("ab") as complained:
            streams = [stream.fileno() for stream in (nothing, said, complained)]
            socket.send_fds(self._connection, [len(asked).to_bytes(LENGTH, "big")], streams)
        self._connection.sendall(asked)
        self._told = b""
        self.exitcode: int | None = None  # below 0 for a signal
        self.pid = int(self._line(None) or 0)

    def _line(self, timeout: float | None) -> str | None:
        """The next line of the server; None if it does not come in these seconds."""
        stop = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._told:
            self._connection.settimeout(None if stop is None else max(stop - time.monotonic(), 1e-6))
            try:
                part = self._connection.recv(100)
            except TimeoutError:
                return None
            assert part, "the server of forks has ended"
            self._told += part
        line, _, self._told = self._told.partition(b"\n")
        return line.decode()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, or so many seconds."""
        if self.exitcode is None and (line := self._line(timeout)) is not None:
            self.exitcode = int(line)

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        self.join(0)
        return self.exitcode is None

    def send_signal(self, number: int) -> None:
        """Nothing if it has ended."""
        if self.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """By SIGTERM."""
        self.send_signal(signal.SIGTERM)
