"""An HTTP client that sends requests at given times, whether or not earlier ones were answered (open loop).

A client that waits for each answer sends fewer requests to a slow server, and so hides its delays. Here a
request's latency counts from the time at which it was due. Only addresses of this machine are called.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MAX_REQUESTS = 2_000_000  # of one call
_END = b"\r\n\r\n"


@dataclass
class Outcome:
    """Answers to the requests of one call.

    Args:
        seconds: Time from the first request to the last answer.
        busy: CPU time of the client.
        latencies: Latency of every answered request, in milliseconds.
        statuses: Number of answers by HTTP status; `lost` counts requests without an answer.
    """

    seconds: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        """Number of requests without an answer of status 200."""
        return sum(self.statuses.values()) - self.statuses["200"]

    @property
    def rate(self) -> float:
        """Answers of status 200 in a second."""
        return self.statuses["200"] / self.seconds

    def percentile(self, percent: float) -> float:
        """Latency in milliseconds."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, owner: _Pool) -> None:
        self.owner, self.due, self.busy = owner, 0.0, False
        self.buffer, self.needed = b"", 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self.due, self.busy, self.buffer, self.needed = due, True, b"", 0
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.needed:
            end = self.buffer.find(_END)
            if end < 0:
                return
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.needed = end + len(_END) + length
        if len(self.buffer) >= self.needed and self.busy:
            self.busy = False
            self.owner.answered(self, self.buffer[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.owner.closed(self)


class _Pool:
    def __init__(self, host: str, port: int, outcome: Outcome, most: int) -> None:
        self.host, self.port, self.outcome, self.most = host, port, outcome, most
        self.free: list[_Connection] = []
        self.count, self.open, self.waiting = 0, 0, asyncio.Event()

    async def send(self, request: bytes, due: float) -> None:
        try:
            connection = await self._connection()
        except OSError:
            self.outcome.statuses["refused"] += 1
            return
        self.open += 1
        connection.send(request, due)

    async def _connection(self) -> _Connection:
        while not self.free and self.count >= self.most:
            self.waiting.clear()
            await self.waiting.wait()
        if self.free:
            return self.free.pop()
        self.count += 1
        try:
            _, made = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), self.host, self.port
            )
        except OSError:
            self.count -= 1
            raise
        return made

    def answered(self, connection: _Connection, status: str) -> None:
        self.open -= 1
        self.outcome.statuses[status] += 1
        self.outcome.latencies.append((time.perf_counter() - connection.due) * 1000)
        self.free.append(connection)
        self.waiting.set()

    def closed(self, connection: _Connection) -> None:
        self.count -= 1
        if connection.busy:
            self.open -= 1
            self.outcome.statuses["lost"] += 1
        elif connection in self.free:
            self.free.remove(connection)
        self.waiting.set()


def post(path: str, body: bytes, port: int, headers: str = "") -> bytes:
    """Return the bytes of a POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def at_rate(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, host: str = "127.0.0.1", seed: int = 0
) -> Outcome:
    """Send requests at random times, ``rate`` in a second on average (Poisson).

    Args:
        port: Port of the server.
        requests: Bytes of the requests, sent in turn.
        rate: Requests in a second.
        seconds: Duration.
        host: Loopback address of the server.
        seed: Seed of the times.
    """
    count = min(int(rate * seconds), MAX_REQUESTS)
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    return asyncio.run(_at_rate(_loopback(host), port, requests, times))


def in_turn(
    port: int, requests: Sequence[bytes], seconds: float, connections: int, host: str = "127.0.0.1"
) -> Outcome:
    """Send the next request on each connection when its answer is there: the highest rate of both ends."""
    return asyncio.run(_in_turn(_loopback(host), port, requests, seconds, connections))


async def _at_rate(
    host: str, port: int, requests: Sequence[bytes], times: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Outcome:
    outcome = Outcome()
    pool, busy = _Pool(host, port, outcome, 1000), time.process_time()
    began = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()
    for number, offset in enumerate(times.tolist()):
        due = began + offset
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        request = requests[number % len(requests)]
        if pool.free:
            pool.open += 1
            pool.free.pop().send(request, due)
        else:
            task = asyncio.create_task(pool.send(request, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    stop = time.perf_counter() + 30
    while (tasks or pool.open) and time.perf_counter() < stop:
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    outcome.statuses["lost"] += pool.open
    outcome.seconds, outcome.busy = time.perf_counter() - began, time.process_time() - busy
    return outcome


async def _in_turn(
    host: str, port: int, requests: Sequence[bytes], seconds: float, connections: int
) -> Outcome:
    outcome = Outcome()
    pool, busy = _Pool(host, port, outcome, connections), time.process_time()
    began = now = time.perf_counter()
    number = 0
    while now - began < seconds and number < MAX_REQUESTS:
        connection = await pool._connection()
        pool.open += 1
        now = time.perf_counter()
        connection.send(requests[number % len(requests)], now)
        number += 1
    while pool.open and time.perf_counter() < now + 30:
        await asyncio.sleep(0.001)
    outcome.seconds, outcome.busy = time.perf_counter() - began, time.process_time() - busy
    return outcome


def _loopback(host: str) -> str:
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"only loopback addresses are called, and {host} is none")
    return host
