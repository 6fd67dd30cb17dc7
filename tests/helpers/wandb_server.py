"""As much of a Weights & Biases server as its own `wandb sweep` and `wandb agent` talk to, within the test.

It keeps a sweep and deals out runs; what a run logs does not come here (runs under test are offline).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "shop"


class SweepServer:
    """Deals ``runs`` (values by parameter) to whichever agent asks, and stops those that are ``hopeless``."""

    def __init__(
        self, runs: Iterable[Mapping[str, Any]], hopeless: Callable[[str], bool] = lambda run: False
    ) -> None:
        self.runs, self.hopeless = enumerate(runs), hopeless
        self.config, self.project = "", ""
        self.dealt: dict[str, Mapping[str, Any]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["content-length"]))
                data = server.answer(**json.loads(sent)) if self.path == "/graphql" else {}  # else: telemetry
                body = json.dumps({"data": data}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, query: str, variables: Mapping[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        given = variables or {}
        if "upsertSweep" in query:
            self.config, self.project = given["config"], given["projectName"]
            project = {"id": "1", "name": self.project, "entity": {"id": "1", "name": ENTITY}}
            sweep = {"name": "sweep1", "project": project}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
        if "SweepWithRuns" in query:
            known = (given["entity"], given["project"], given["sweep"]) == (ENTITY, self.project, "sweep1")
            sweep = {"id": "1", "config": self.config, "runs": {"edges": []}}
            return {"project": {"sweep": sweep} if known else None}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "agent1"}}}
        if "agentHeartbeat" in query:
            commands = self.commands(json.loads(given["runState"]))
            return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}
        if "viewer" in query:
            viewer = {"id": "1", "entity": ENTITY, "username": ENTITY, "teams": {"edges": []}, "flags": "{}"}
            return {"viewer": viewer}
        return {}

    def commands(self, states: dict[str, str]) -> list[dict[str, Any]]:
        if states:
            return [{"type": "stop", "run_id": run} for run in states if self.hopeless(run)]
        for number, values in self.runs:
            name = f"run{number}"
            self.dealt[name] = values
            given = {key: {"value": value} for key, value in values.items()}
            return [{"type": "run", "run_id": name, "program": None, "args": given}]
        return [{"type": "exit"}]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
