"""Stands in for the interpreter and for console scripts: a command of the project is forked (`forks`).

`forks` writes it beside the server's socket, behind a line with the real interpreter. It passes signals on,
ends as the fork ends, and the fork is killed if it is killed. With STARTS_ANEW in the environment it starts
the real one.
"""

import json
import os
import signal
import socket
import sys

FORKED = ("llm4sbr", "llm4sbr.__main__", "experiments", "pytest")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def words() -> list[str]:
    """As behind `python`."""
    name, given = os.path.basename(sys.argv[0]), sys.argv[1:]
    if name != "python":
        return [os.path.join(os.path.dirname(sys.executable), name), *given]
    while given and given[0] in ("-u", "-P"):
        del given[0]
    module = given[1:2] if given[:1] == ["-m"] else []
    if (
        "STARTS_ANEW" in os.environ
        or not given
        or (module[0] not in FORKED if module else given[0].startswith("-"))
    ):
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    return given


def main() -> None:
    """Have it forked, and wait."""
    asked = json.dumps({"words": words(), "cwd": os.getcwd(), "environment": dict(os.environ)}).encode()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    answers = server.makefile()
    pid = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = int(answers.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
