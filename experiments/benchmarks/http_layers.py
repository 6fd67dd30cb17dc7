"""The cost of an empty JSON API on several HTTP servers: what is left for the model on the same cores."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from experiments.benchmarks.open_loop import Outcome, at_rate, in_turn, post
from experiments.benchmarks.results import keep, row

BODY = b'{"sessions":[["B00000001","B00000002","B00000003"]],"k":20}'
SERVERS = {
    "bytes": """
import asyncio, sys
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
class Server(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
""",
    "starlette": """
import sys, json, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def answer(request):
    json.loads(await request.body())
    return JSONResponse({})
app = Starlette(routes=[Route("/", answer, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
""",
    "uvicorn": """
import sys, json, uvicorn
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]
async def app(scope, receive, send):
    assert scope["type"] == "http"
    json.loads((await receive())["body"])
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
""",
    "fastapi": """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
class Asked(BaseModel):
    sessions: list[list[str]]
    k: int
app = FastAPI()
@app.post("/")
async def answer(asked: Asked) -> dict[str, str]:
    return {}
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
""",
    "litserve": """
import sys, litserve
class API(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return request
    def predict(self, x): return [{} for _ in x] if isinstance(x, list) else {}
    def encode_response(self, output): return output
if __name__ == "__main__":
    api = API(max_batch_size=64, batch_timeout=0.002, api_path="/")
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
""",
    "mosec": """
import sys, mosec
class API(mosec.Worker):
    def forward(self, data): return [{} for _ in data]
if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(API, num=1, max_batch_size=64, max_wait_time=2)
    server.run()
""",
}
NEEDED = {"starlette": "uvicorn", "bytes": "asyncio"}


def http_layers(
    names: list[str] | None = None, rate: float = 1000, seconds: float = 10, json: Path | None = None
) -> None:
    """Measure empty JSON APIs: the CPU time of a request, the latency at a rate, and the highest rate.

    The client runs on the same machine. Its own ceiling is its rate against ``bytes``, a server that parses
    nothing. CPU times hardly depend on other jobs of the machine; latencies and rates do.

    Example::

        python -m experiments benchmarks http_layers --json experiments/results/http_layers.json

    Args:
        names: Servers; by default those that are installed.
        rate: Requests in a second.
        seconds: Duration of each measurement.
        json: File for the results.
    """
    rows: list[dict[str, Any]] = []
    for name in names or [one for one in SERVERS if find_spec(NEEDED.get(one, one)) is not None]:
        with tempfile.TemporaryDirectory() as folder:
            rows += _measured(name, Path(folder), rate, seconds)
    keep("http_layers", rows, json)


def _measured(name: str, folder: Path, rate: float, seconds: float) -> list[dict[str, Any]]:
    port, script, path = free_port(), folder / "server.py", "/inference" if name == "mosec" else "/"
    script.write_text(SERVERS[name])
    options = ["--port", str(port), "--address", "127.0.0.1"] if name == "mosec" else [str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, str(script), *options], cwd=folder, stdout=log, stderr=log)
    requests = [post(path, BODY, port)]
    try:
        wait_for(port, requests)
        before = cpu_seconds(server.pid)
        found = at_rate(port, requests, rate, seconds)
        used = cpu_seconds(server.pid) - before
        highest = in_turn(port, requests, seconds, 32)
        memory = sum(one.memory_info().rss for one in family(server.pid))
    finally:
        every = family(server.pid)
        server.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(every, timeout=10)
        for one in alive:
            one.kill()
    sent = sum(found.statuses.values())
    note = f"{rate:g} requests/s for {seconds:g} s"
    return [
        row(f"{name}: CPU of a request, server", used / sent * 1e6, "µs", note=note),
        row(f"{name}: CPU of a request, client", found.busy / sent * 1e6, "µs", note=note),
        *(row(f"{name}: p{at}", found.percentile(at), "ms", note=note) for at in (50, 90, 99)),
        row(f"{name}: requests without a 200", found.errors, "requests", 0, "lower", note),
        row(f"{name}: highest rate", highest.rate, "requests/s", note="32 connections, each in turn"),
        row(f"{name}: memory", memory / 2**20, "MiB", note="resident, all processes"),
        row(f"{name}: processes alive 10 s after SIGTERM", len(alive), "processes", 0, "lower"),
    ]


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(port: int, requests: list[bytes], seconds: float = 60) -> Outcome:
    """Send requests until one gets status 200."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found = in_turn(port, requests, 0.05, 1) if listens(port) else Outcome()
        if found.statuses["200"]:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


def family(pid: int) -> list[psutil.Process]:
    """A process and those that it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and those that it started."""
    times = [one.cpu_times() for one in family(pid)]
    return sum(one.user + one.system for one in times)


def listens(port: int) -> bool:
    """Whether a server listens on a port of the loopback interface."""
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0
