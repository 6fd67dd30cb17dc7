"""Load on ``llm4sbr serve``: latency of random sessions at given rates, over loopback."""

from __future__ import annotations

import json as json_module
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from experiments.benchmarks.http_layers import SERVERS, cpu_seconds, free_port, listens, wait_for
from experiments.benchmarks.open_loop import Outcome, at_rate, in_turn, post
from experiments.benchmarks.results import keep, row
from experiments.study.memory_watch import MemoryWatch, resident
from llm4sbr import LLM4SBRWrapper, SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.serving.bundle import Content, write_bundle
from llm4sbr.serving.known_views import pack_views
from llm4sbr.serving.manifest import Manifest, ServedViewsSpec
from llm4sbr.serving.model import build_model, serving_state

_VIEWS = ("long_term", "short_term")
_TEXT = 384
_METRIC = re.compile(r"^(llm4sbr_batch_\w+?)_(sum|count) (\S+)$", re.MULTILINE)


class Running(NamedTuple):
    """A server under load."""

    process: subprocess.Popen[bytes]
    port: int

    def metrics(self) -> dict[str, float]:
        """Sums and counts of its batches."""
        from urllib.request import urlopen

        text = urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        return {f"{name}_{what}": float(value) for name, what, value in _METRIC.findall(text)}


def load(
    bundle: Path | None = None,
    items: int = 100_000,
    dim: int = 128,
    wrapped: bool = False,
    rates: list[float] = [250, 500, 1000],  # noqa: B006
    seconds: float = 10,
    options: list[str] = [],  # noqa: B006
    json: Path | None = None,
) -> None:
    """Measure the latency of a server under load, and what of it the client itself takes.

    Requests of one session each arrive at random times, whether or not earlier ones were answered; a latency
    counts from the time at which the request was due. Items are drawn by a power law, lengths are geometric.
    Client and server share this machine; only loopback is called.

    Example::

        python -m experiments benchmarks load --json experiments/results/load.json

    Args:
        bundle: Bundle; by default one with random weights is made.
        items: Items of the made bundle.
        dim: Dimension of the made bundle.
        wrapped: Whether the made model is wrapped; a third of its sessions then have known views.
        rates: Requests in a second.
        seconds: Duration at each rate.
        options: Further words of ``llm4sbr serve``.
        json: File for the results.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if bundle is None:
            bundle = made_bundle(Path(scratch) / "bundle", items, dim, wrapped)
        sessions = power_law(item_ids(bundle), 5000)
        bodies = [json_module.dumps({"sessions": [one], "k": 20}).encode() for one in sessions]
        note = f"{len(item_ids(bundle))} items, {'wrapped' if wrapped else 'bare'}, {seconds:g} s"
        ceiling = client_ceiling(bodies, Path(scratch))
        rows = [row("client's own ceiling, against a server of bytes", ceiling, "requests/s", note=note)]
        running = start(bundle, Path(scratch), options)
        try:
            requests = [post("/v1/recommend", body, running.port) for body in bodies]
            wait_for(running.port, requests[:1])
            in_turn(running.port, requests, 2, 16)  # warm
            for rate in rates:
                rows += _at(running, requests, rate, seconds, note)
            highest = in_turn(running.port, requests, min(seconds, 10.0), 64)
            rows.append(row("highest rate, 64 connections", highest.rate, "requests/s", note=note))
            rows.append(row("memory of the server", resident(running.process.pid), "MiB", note=note))
        finally:
            running.process.send_signal(signal.SIGTERM)
            status = running.process.wait(60)
        rows.append(row("exit status after SIGTERM", status, "", 0, "lower", note))
    keep("load", rows, json)


def _at(
    running: Running, requests: list[bytes], rate: float, seconds: float, note: str
) -> list[dict[str, Any]]:
    before, used = running.metrics(), cpu_seconds(running.process.pid)
    with MemoryWatch(running.process.pid) as held:
        found: Outcome = at_rate(running.port, requests, rate, seconds)
    sent = sum(found.statuses.values())
    used = (cpu_seconds(running.process.pid) - used) / sent * 1e6
    after = running.metrics()
    grown = {name: after[name] - before[name] for name in after}
    batches = grown["llm4sbr_batch_sessions_count"]
    at = f"{rate:g}/s"
    target = 50.0 if rate == 1000 else None
    return [
        *(
            row(f"{at}: p{p}", found.percentile(p), "ms", target if p == 90 else None, "lower", note)
            for p in (50, 90, 99)
        ),
        row(f"{at}: requests without a 200", found.errors, "requests", 0, "lower", note),
        row(f"{at}: throughput", found.rate, "requests/s", note=note),
        row(f"{at}: sessions in a batch", grown["llm4sbr_batch_sessions_sum"] / batches, "", note=note),
        row(f"{at}: a batch", grown["llm4sbr_batch_seconds_sum"] / batches * 1e3, "ms", note=note),
        row(f"{at}: CPU of a request, server", used, "µs", note=note),
        row(f"{at}: growth of the server's memory", held.grown(0, 1), "MiB", note=note),
        row(f"{at}: growth in the second half", held.grown(0.5, 1), "MiB", note=note),
        row(f"{at}: CPU of a request, client", found.busy / sent * 1e6, "µs", note=note),
    ]


def made_bundle(folder: Path, items: int, dim: int, wrapped: bool, seed: int = 0) -> Path:
    """Write a bundle of an SR-GNN with random weights; a third of the load's sessions have known views."""
    torch.manual_seed(seed)
    ids = tuple(f"B{number:08d}" for number in range(items))
    catalogue = Catalogue(ids, tuple(f"Article {number} of shelf {number % 97}" for number in range(items)))
    model = (LLM4SBRWrapper if wrapped else SBRModule)(SRGNN(items, dim)).eval()
    spec, titles, views = None, None, None
    if wrapped:
        known = [[catalogue.index[item] for item in one] for one in power_law(ids, 5000)[::3]]
        keys = sorted({catalogue.session_key(one) for one in known})
        spec = ServedViewsSpec(_VIEWS, "llm", _VIEWS, sessions=len(keys))
        rows = torch.randint(1, items + 1, (len(keys), 2, 10), dtype=torch.int32)
        views = pack_views(keys, {"ids": rows, "weights": torch.rand(rows.shape).half()})
        embeddings = torch.nn.functional.normalize(torch.randn(items, _TEXT))
        titles = embeddings, torch.ones(items, dtype=torch.bool)
        model.read_titles(*titles)
    described = Manifest(model.described(), items, catalogue.fingerprint, 50, spec)
    state = serving_state(model, build_model(model.described()))
    return write_bundle(folder, described, Content(state, catalogue, titles, views))


def item_ids(bundle: Path) -> list[str]:
    """Item ids of a bundle."""
    found: list[str] = pl.read_parquet(bundle / "catalogue.parquet")["item_id"].to_list()
    return found


def power_law(ids: tuple[str, ...] | list[str], count: int, seed: int = 0) -> list[list[str]]:
    """Draw sessions: items by a power law of their rank, and 1 to 50 clicks, 4 on average."""
    draw = np.random.default_rng(seed)
    lengths = np.minimum(draw.geometric(0.25, count), 50)
    weights = 1 / np.arange(1, len(ids) + 1) ** 1.0
    items = draw.choice(len(ids), int(lengths.sum()), p=weights / weights.sum())
    return [[ids[item] for item in part] for part in np.split(items, lengths.cumsum()[:-1])]


def start(bundle: Path, scratch: Path, options: list[str]) -> Running:
    """Start ``llm4sbr serve`` on a free port."""
    port = free_port()
    words = [sys.executable, "-m", "llm4sbr", "serve", str(bundle), "--port", str(port), *options]
    with (scratch / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    stop = time.monotonic() + 120
    while not listens(port):
        if process.poll() is not None or time.monotonic() > stop:
            raise RuntimeError((scratch / "server.log").read_text())
        time.sleep(0.1)
    return Running(process, port)


def client_ceiling(bodies: list[bytes], scratch: Path) -> float:
    """Requests in a second that the client sends and reads, against a server that parses nothing."""
    port, script = free_port(), scratch / "bytes.py"
    script.write_text(SERVERS["bytes"])
    server = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        requests = [post("/v1/recommend", body, port) for body in bodies]
        wait_for(port, requests[:1])
        return in_turn(port, requests, 2, 64).rate
    finally:
        server.terminate()
        server.wait()
