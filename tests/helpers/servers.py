"""A real `llm4sbr serve` in a process, and requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts import Started


class RunningServer:
    """A server process on a free port of the loopback interface."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def events(self):
        """Lines of the log; each is a JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def request(self, method, path, body=None, headers=None):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path, **headers):
        status, _, body = self.request("GET", path, headers=headers)
        return status, json.loads(body)

    def post(self, content, path="/v1/recommend", **headers):
        """POST of JSON, or of bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        given = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        status, _, answer = self.request("POST", path, body, given)
        return status, json.loads(answer)

    def metric(self, line):
        """Value of a line of the metrics; 0 if it is not there."""
        text = self.request("GET", "/metrics")[2].decode()
        return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line)), 0.0)

    def send(self, number):
        """Send a signal."""
        os.kill(self.process.pid, number)

    def ended(self, seconds):
        """Exit status; None if it still runs after these seconds."""
        if isinstance(self.process, subprocess.Popen):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            return self.process.returncode
        self.process.join(seconds)
        return self.process.exitcode

    def stop(self, number=signal.SIGTERM, seconds=30):
        """Exit status after a signal."""
        self.send(number)
        return self.ended(seconds)


@contextmanager
def serving(bundle: Path, scratch: Path, *options: str, python: Path | None = None, **environment: str):
    """Start a server, and kill it in the end if it still runs.

    Args:
        bundle: What it serves.
        scratch: Its folder.
        options: Of the command line.
        python: Interpreter of another environment; by default the server is a fork that has imported.
        environment: Variables beside this process's own.
    """
    words = ("serve", str(bundle), "--port", "0", "--drain_s", "0.3", *options)
    told = os.environ | environment
    if python is None:
        started = Started(scratch, "llm4sbr", *words, environment=told)
        process, log = started.process, started.said / "2"
    else:
        log = scratch / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [python, "-P", "-m", "llm4sbr", *words], cwd=scratch, stdout=stream, stderr=stream, env=told
            )
    server = RunningServer(process, 0, log)
    try:
        stop = time.monotonic() + 90
        while not (url := _url(log)):
            assert server.ended(0) is None, log.read_text()
            assert time.monotonic() < stop, log.read_text()
            time.sleep(0.05)
        server.port = int(url.rpartition(":")[2])
        yield server
    finally:
        process.kill()
        server.ended(30)


def until(holds, seconds=20):
    """Wait until a condition holds."""
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop, "this does not happen"
        time.sleep(0.05)


def _url(log):
    for line in log.read_text().splitlines():
        if '"listening"' in line and line.endswith("}"):
            return json.loads(line)["url"]
    return None


@contextmanager
def serving_here(
    bundle: Path, *, compare: Path | None = None, key: str | None = None, page: bool = True, **questions
):
    """A server in a thread of this process, without its signals and its log; `questions` such as `ask`."""
    from llm4sbr.serving.server.app import App
    from llm4sbr.serving.server.asking import Asking
    from llm4sbr.serving.server.batcher import Batcher
    from llm4sbr.serving.server.json_log import JsonLog
    from llm4sbr.serving.server.live_bundle import LiveBundle
    from llm4sbr.serving.server.metrics import Metrics
    from llm4sbr.serving.server.options import Batching, Limits, Network, Questions
    from llm4sbr.serving.server.process import Server, config, listening

    class Quiet(Server):
        @contextmanager
        def capture_signals(self):
            self.loop = asyncio.get_running_loop()
            yield

    network, metrics, log = Network(port=0, drain_s=0), Metrics(), JsonLog("error")
    bundles = [LiveBundle(bundle, "cpu", metrics, log)]
    if compare is not None:
        bundles.append(LiveBundle(compare, "cpu", metrics, log, "compared"))
    batcher = Batcher(Batching(), metrics)
    asking = Asking(bundles[0], Questions(**questions), metrics, log) if questions else None
    app = App(
        bundles[0], batcher, Limits(), metrics, log,
        compared=bundles[1] if compare is not None else None, key=key, page=page,
    )  # fmt: skip
    with listening(network) as listener:
        server = Quiet(config(app, network), app, network)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield RunningServer(server, listener.getsockname()[1], None)
        finally:
            server.should_exit = True
            thread.join()
            batcher.close()
            if asking is not None:
                asking.close()
