"""The process that is forked: it has imported what most commands need, and runs what it is asked to in forks.

``python fork_server.py FOLDER`` listens at ``FOLDER/socket``. A request is a connection: its length, with the
three standard streams, then JSON with ``words`` (as behind ``python``), ``cwd`` and ``environment``. The
answers are lines: the fork's id, and its status when it has ended. If the connection is closed before, the
fork is killed. A connection without a request keeps the server alive.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

LINGER = 20  # seconds without a connection: the tests have ended, or were killed
ROOT = str(Path(__file__).parents[2])
LENGTH = 8  # bytes


class Server:
    """Answers requests, one fork for each.

    Args:
        listener: The socket.
        python: Stands in for the interpreter in forks, so that what they start is forked, too.
    """

    def __init__(self, listener: socket.socket, python: str) -> None:
        self.listener, self.python = listener, python
        self.connections: dict[socket.socket, int] = {}  # and the fork's id, 0 before the request
        self.ended, told = socket.socketpair()
        for end in (listener, self.ended, told):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told.fileno())
        self.told = told
        self.selector = selectors.DefaultSelector()
        for end in (listener, self.ended):
            self.selector.register(end, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until nobody is there."""
        while True:
            ready = self.selector.select(LINGER)
            if not ready and not self.connections:
                return
            for key, _ in ready:
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.ended:
                    self._reap()
                elif key.fileobj in self.connections:
                    self._read(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(True)
        self.connections[connection] = 0
        self.selector.register(connection, selectors.EVENT_READ)

    def _close(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        del self.connections[connection]
        connection.close()

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            head, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
            if head:
                self._fork(connection, read(connection, int.from_bytes(head, "big")), streams)
                return
        if pid := self.connections[connection]:
            os.kill(pid, signal.SIGKILL)
        self._close(connection)

    def _fork(self, connection: socket.socket, asked: bytes, streams: list[int]) -> None:
        pid = os.fork()
        if not pid:
            self._become(json.loads(asked), streams)
        for stream in streams:
            os.close(stream)
        self.connections[connection] = pid
        connection.sendall(f"{pid}\n".encode())

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.ended.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                for connection in [one for one, of in self.connections.items() if of == pid]:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                    self._close(connection)

    def _become(self, asked: dict[str, Any], streams: list[int]) -> None:
        os.setsid()  # its children can be killed with it
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        for one in (self.listener, self.ended, self.told, *self.connections):
            one.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        sys.executable = self.python
        os._exit(_status_of(asked))


def read(connection: socket.socket, length: int) -> bytes:
    """So many bytes."""
    parts = b""
    while len(parts) < length:
        if not (part := connection.recv(length - len(parts))):
            raise ConnectionResetError
        parts += part
    return parts


def _status_of(asked: dict[str, Any]) -> int:
    """Run what is asked for, as Python does to its end."""
    status: Any = 0
    try:
        _run(**asked)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        status = status or 1
    return (status or 0) & 0xFF


def _run(words: list[str], cwd: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path.append(ROOT)  # last: the installed llm4sbr is tested, not the checkout
    what, *rest = words
    if what in ("-m", "-c"):
        name, *rest = rest
    sys.argv = [what if what == "-c" else name if what == "-m" else what, *rest]
    if what == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif what == "-c":
        exec(compile(name, "<code>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(what).parent))  # as Python does
        runpy.run_path(what, run_name="__main__")


def main(folder: Path) -> None:
    """Listen, import, and serve."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "new"))
    listener.listen(64)  # whoever comes while this imports waits
    (folder / "new").rename(folder / "socket")
    import imported_once  # noqa: F401

    gc.collect()
    gc.freeze()  # so that a fork's collections do not copy all of it
    try:
        Server(listener, str(folder / "python")).serve()
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
