"""Options of the server, as frozen groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_fields,
)

_LAST_PORT = 65535


@dataclass(frozen=True)
class Network:
    """Address of the server, and its end.

    Args:
        host: Address to listen on; by default only programs on this machine reach the server.
        port: Port to listen on; 0 for any free one.
        drain_s: Seconds after SIGTERM in which new connections are still accepted, while `/ready` says no.
        grace_s: Seconds after SIGTERM in which accepted requests are finished.
        watch_s: Seconds between looks at the bundle; a changed one is loaded. 0 for none: SIGHUP reloads.
    """

    host: str = "127.0.0.1"
    port: NonNegativeInt = 8000
    drain_s: NonNegativeFloat = 1.0
    grace_s: PositiveFloat = 25.0
    watch_s: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.port > _LAST_PORT:
            raise InputError(f"port must be at most {_LAST_PORT}", value=self.port)


@dataclass(frozen=True)
class Batching:
    """Micro-batches of concurrent requests.

    Args:
        window_ms: Milliseconds that the first request of a batch waits for others.
        max_size: Sessions in a batch. Larger batches are slower per session, once their scores leave the
            processor's cache.
        queue: Sessions that may wait; further requests get 503 at once. A long queue makes every answer late.
        workers: Batches that are scored at a time, each in a thread.
        threads: Threads of torch for each of them.
    """

    window_ms: NonNegativeFloat = 2.0
    max_size: PositiveInt = 32
    queue: PositiveInt = 256
    workers: PositiveInt = 2
    threads: PositiveInt = 1

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Args:
        body_bytes: Size of a body.
        sessions: Sessions in a request.
        clicks: Clicks in a session.
        k: Items to recommend.
        listed: Items in each of the lists `only` and `without`.
        id_length: Characters of an item's id.
        explained: Clicks in a session whose item is explained: each click is left out once.
        timeout_s: Seconds for a request's body to arrive, for a request to wait for its batch, and for an
            explanation.
    """

    body_bytes: PositiveInt = 1 << 20
    sessions: PositiveInt = 64
    clicks: PositiveInt = 500
    k: PositiveInt = 500
    listed: PositiveInt = 50_000
    id_length: PositiveInt = 512
    explained: PositiveInt = 100
    timeout_s: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Records:
    """What the server writes down.

    Args:
        log: Least level of the log on stderr, one JSON object a line; `info` has a line for every request.
        log_sessions: Whether the log shows the sessions' item ids.
        impressions: Folder of the impression log; none by default.
        impression_rows: Sessions in a file of the impression log.
        impression_s: Seconds after which a file is written, full or not.
    """

    log: Literal["info", "warning", "error"] = "info"
    log_sessions: bool = False
    impressions: str | None = None
    impression_rows: PositiveInt = 50_000
    impression_s: PositiveFloat = 60.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Questions:
    """A language model beside the server.

    Args:
        ask: Folder of the queue of uncertain sessions, which `llm4sbr views answer` answers; none by default.
        ask_share: Share of the sessions without known views that are queued: the most uncertain ones.
        ask_limit: Sessions that may wait; beyond it the least uncertain ones are dropped.
        ask_s: Seconds between looks at the queue, for sessions to queue and for new views.
    """

    ask: str | None = None
    ask_share: PositiveShare = 0.05
    ask_limit: PositiveInt = 10_000
    ask_s: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        check_fields(self)
