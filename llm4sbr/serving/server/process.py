"""The process of the server: its start, its signals and its end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.retrieval import Retrieval
from llm4sbr.serving.server.app import App
from llm4sbr.serving.server.asking import Asking
from llm4sbr.serving.server.batcher import Batcher
from llm4sbr.serving.server.impressions import ImpressionLog
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.live_bundle import LiveBundle
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.options import Batching, Limits, Network, Questions, Records

KEY = "LLM4SBR_API_KEY"
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
_QUIET = 0.2  # seconds without a request after which idle connections are closed


class Server(uvicorn.Server):
    """Server of uvicorn that loses no request at its end.

    After SIGTERM it goes on accepting for a while, and closes each connection with its answer. Then it stops
    listening, finishes what it has accepted, and closes idle connections last: a request that arrives at an
    idle connection while it is closed would be lost.

    Args:
        config: Configuration of uvicorn.
        app: Application.
        network: Times of the end.
    """

    def __init__(self, config: uvicorn.Config, app: App, network: Network) -> None:
        super().__init__(config)
        self.app, self.network, self.late = app, network, False
        self._reloads: set[asyncio.Task[bool]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM, SIGINT and SIGHUP; uvicorn would end by the signal and not with status 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        watch = asyncio.ensure_future(self._watch()) if self.network.watch_s else None
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the batches, and listen."""
        self.app.batcher.start()
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        loaded = self.app.live.now
        self.app.log.always(
            "listening",
            url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
            pid=os.getpid(),
            bundle=loaded.fingerprint,
            items=loaded.catalogue.num_items,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, stop listening, and finish what was accepted."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.network.drain_s)
        await self._stop_listening(sockets or [])
        stop, quiet = loop.time() + self.network.grace_s, loop.time() + _QUIET
        while loop.time() < min(stop, quiet):
            if self.app.in_flight:
                quiet = loop.time() + _QUIET
            await asyncio.sleep(0.01)
        self.late = bool(self.app.in_flight)
        await super().shutdown(sockets)

    def reload(self, *bundles: LiveBundle) -> None:
        """Load these bundles again, or all, each in a thread."""
        for live in bundles or self.app.bundles:
            task = asyncio.ensure_future(asyncio.to_thread(live.reload))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    def _stop(self, number: signal.Signals) -> None:
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        if not self.should_exit:
            self.app.log.info("stopping", signal=number.name, in_flight=self.app.in_flight)
        self.app.draining = self.should_exit = True

    async def _watch(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(self.network.watch_s)
            for live in self.app.bundles:
                if not self._reloads and await asyncio.to_thread(live.changed):
                    self.reload(live)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, after the last connections that wait in their queues are accepted."""
        loop, waiting = asyncio.get_running_loop(), []
        for listener in sockets:
            while True:
                try:
                    waiting.append(listener.accept()[0])
                except OSError:
                    break
        for server in self.servers:
            server.close()
        for one in waiting:
            one.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, one)

    def _protocol(self) -> asyncio.Protocol:
        kind: type[asyncio.Protocol] = self.config.http_protocol_class
        made = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        return kind(**made)


def serve_bundle(
    bundle: str | Path,
    device: str,
    network: Network,
    batching: Batching,
    limits: Limits,
    records: Records,
    questions: Questions,
    *,
    compare: str | Path | None = None,
    page: bool = True,
    retrieval: Retrieval | None = None,
) -> int:
    """Serve a bundle until SIGTERM or SIGINT; `llm4sbr.cli.serve` describes the arguments.

    Returns:
        Exit status: 0 if every accepted request was answered.

    Raises:
        InputError: If the bundle is damaged, or the address or a folder cannot be used.
    """
    torch.set_num_threads(batching.threads)
    keep_memory()
    metrics, log = Metrics(), JsonLog(records.log)
    listener = listening(network)
    try:
        live = LiveBundle(bundle, device, metrics, log, retrieval=retrieval)
        compared = (
            None if compare is None else LiveBundle(compare, device, metrics, log, "compared", retrieval)
        )
        batcher = Batcher(batching, metrics)
        impressions = None
        if records.impressions is not None:
            impressions = ImpressionLog(
                records.impressions, records.impression_rows, records.impression_s, metrics, log
            )
        asking = None if questions.ask is None else Asking(live, questions, metrics, log)
        key = os.environ.get(KEY) or None
        app = App(
            live,
            batcher,
            limits,
            metrics,
            log,
            compared=compared,
            page=page,
            impressions=impressions,
            key=key,
            log_sessions=records.log_sessions,
        )
        _log_libraries(log)
        if key is None and network.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning("open", problem=f"other machines reach this server without a key; set {KEY}")
        server = Server(config(app, network), app, network)
        try:
            server.run(sockets=[listener])
        finally:
            batcher.close()
            if impressions is not None:
                impressions.close()
            if asking is not None:
                asking.close()
    finally:
        listener.close()
    log.info("stopped", late=server.late)
    return int(server.late)


def keep_memory() -> None:
    """Let the allocator keep freed memory: a third of the time of a batch with 100,000 items.

    The scores of a batch have megabytes, and glibc would return them to the system after every operation.
    """
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        allocator(option, 1 << 30)


def config(app: App, network: Network) -> uvicorn.Config:
    """Configuration of uvicorn: HTTP/1.1 alone, without its own logs, headers and trust in proxies."""
    return uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(network.grace_s)),
    )


def listening(network: Network) -> socket.socket:
    """Bind the address, so that a used one is an error before the bundle is loaded.

    Raises:
        InputError: If the address cannot be used.
    """
    host, port = network.host, network.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen here: {reason}", value=f"{host}:{port}") from error
    found.setblocking(False)
    return found


def _log_libraries(log: JsonLog) -> None:
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [log], False
        logger.setLevel(logging.WARNING)
