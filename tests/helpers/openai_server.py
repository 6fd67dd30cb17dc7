"""A small server of the OpenAI chat protocol that misbehaves on request, in threads of the test's process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy


def completion(text: str | None, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    """An answer as a server writes it."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        **fields,
    }


class Server:
    """Answers every prompt in capitals unless the script says otherwise.

    The script gets the prompt and the number of the try, from 1, and returns None or what to do: a dictionary
    (JSON of a good answer), ``(status, headers, body)``, ``"half"``, ``"cut"``, ``"hang"``, or a body.
    """

    def __init__(self, script: Callable[[str, int], Any] = lambda prompt, number: None) -> None:
        self.script, self.delay = script, 0.0
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.under_way = self.most_under_way = self.dropped = 0
        self.lock, self.released = threading.Lock(), threading.Event()
        self.connections: set[socket.socket] = set()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        with self.lock:
            return len(self.connections)

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with server.lock:
                    server.connections.add(self.request)

            def finish(self) -> None:
                with server.lock:
                    server.connections.discard(self.request)
                super().finish()

            def do_POST(self) -> None:
                server.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:  # killed connections are the point of some tests
                pass

        self.http = Quiet(("127.0.0.1", self.port), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Stop listening and cut every connection, as the end of a process does."""
        self.http.shutdown()
        self.http.server_close()
        self.released.set()
        with self.lock:
            for connection in self.connections:
                _shut(connection)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        with self.lock:
            self.asked[prompt] += 1
            number = self.asked[prompt]
            self.times.setdefault(prompt, []).append(time.monotonic())
            self.bodies.append(body)
            self.keys.add(handler.headers["authorization"])
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            time.sleep(self.delay)
            self.reply(handler, prompt, self.script(prompt, number))
        except OSError:
            self.dropped += 1
        finally:
            with self.lock:
                self.under_way -= 1

    def reply(self, handler: BaseHTTPRequestHandler, prompt: str, what: Any) -> None:
        status, headers = 200, {}
        if what is None:
            what = completion(prompt.upper())
        if isinstance(what, tuple):
            status, headers, what = what
        if what == "hang":
            handler.request.settimeout(0.05)
            while not self.released.is_set():
                try:
                    if handler.request.recv(1) == b"":
                        raise OSError("the client has left")
                except TimeoutError:
                    pass
        if what in ("cut", "hang"):
            return _shut(handler.request)
        half = what == "half"
        if half or isinstance(what, dict):
            what = json.dumps(completion(prompt.upper()) if half else what)
        data = what.encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        with self.lock:  # an answer that has begun counts as given
            self.under_way -= 1
        try:
            handler.wfile.write(data[: len(data) // 2] if half else data)
        finally:
            with self.lock:
                self.under_way += 1
        if half:
            _shut(handler.request)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


PROMPTS = [f"prompt {number}" for number in range(40)]


@pytest.fixture
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def serve():
    """Starts servers and sees to their end; the engine must leave neither thread nor connection behind."""
    servers = []

    def start(*args):
        servers.append(Server(*args))
        return servers[-1]

    yield start
    assert not [thread for thread in threading.enumerate() if thread.name == "llm4sbr-requests"]
    until(lambda: not any(server.open_connections for server in servers))
    for server in servers:
        server.kill()


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def engine_for(*servers, **options):
    """An engine with little patience; options of `RetryPolicy` may stand among the engine's."""
    waits = {"timeout": 5.0, "backoff": 0.02, "retries": 3, "max_outage": 10.0}
    retry = RetryPolicy(**{name: options.pop(name, value) for name, value in waits.items()})
    urls = ",".join(server.url for server in servers)
    return OpenAIEngine("m", urls, **{"concurrency": 8, "retry": retry, **options})


def collect(replies):
    """Outcomes by place; every place at most once."""
    return collect_into({}, replies)


def collect_into(outcomes, replies):
    for group in replies:
        assert group, "a group holds at least one reply"
        for reply in group:
            assert reply.place not in outcomes, "answered twice"
            outcomes[reply.place] = reply.outcome
    return outcomes


def assert_all_answered(outcomes, prompts=PROMPTS):
    assert sorted(outcomes) == list(range(len(prompts)))
    assert [outcomes[place].text for place in range(len(prompts))] == [text.upper() for text in prompts]
