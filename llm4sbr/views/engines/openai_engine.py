"""Engine for any server with the OpenAI protocol: vLLM, SGLang, llama.cpp, Ollama or a hosted service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Ranged, check_fields
from llm4sbr.views.engines import Answer, Failure, Reply
from llm4sbr.views.engines.background import in_background
from llm4sbr.views.engines.chat import BadAnswer, Chat, Refused
from llm4sbr.views.engines.fleet import Fleet, Member, Unavailable, pause
from llm4sbr.views.engines.redaction import hide_login, without_secrets
from llm4sbr.views.identity import EngineIdentity, ModelIdentity, digest

_MOST_CONNECTIONS = 1000  # limit of the openai client's connection pool
_LONGEST_PAUSE = 60.0  # seconds between two attempts at one prompt


@dataclass(frozen=True)
class RetryPolicy:
    """Time-outs and retries of an engine's requests.

    Args:
        retries: Further attempts at a prompt after a time-out, a 5xx, an incomplete answer or none.
        timeout: Seconds for one request, including the wait in the server's queue.
        backoff: Seconds before the second attempt, doubled before each further one; the default of six
            retries adds up to about a minute per prompt.
        max_outage: Seconds to wait for servers that accept no request (connection refused, 429, 502-504).

    Raises:
        InputError: ``retries`` is negative, or a number of seconds is not above 0.
    """

    retries: NonNegativeInt = 6
    timeout: PositiveFloat = 60.0
    backoff: PositiveFloat = 1.0
    max_outage: PositiveFloat = 300.0

    def __post_init__(self) -> None:
        check_fields(self)


_RETRY = RetryPolicy()


class OpenAIEngine(Ranged):
    """Greedy answers from servers with the OpenAI chat protocol, many prompts at a time.

    The engine sends each prompt as one user message and retries it after an incomplete or missing answer. It
    waits for a server that is down for a while. A server that refuses the key, the model or the parameters
    ends the run with the first request. The protocol treats prompts as plain content, but a server may still
    parse a control token inside it; `sanitize_title` makes those in titles harmless.

    The key of an answer covers the model's name, the revision and the decoding parameters. It leaves out the
    address, so equal servers share a store, and the server's weights, precision and chat template, which a
    server does not report: set another ``revision`` when one of them changes.

    Args:
        model: Name of the model on the server.
        base_url: Address up to and including ``/v1``. Several addresses (a list, or separated by commas)
            share the work, and a prompt that one server cannot answer goes to another.
        api_key: API key, by default ``OPENAI_API_KEY``. Self-hosted servers mostly need none.
        max_new_tokens: Maximum length of an answer in tokens. Reasoning counts: switch it off, or allow for
            it.
        concurrency: Number of concurrent requests over all servers; at most 1000.
        retry: Time-outs, retries and the longest outage.
        revision: Any label; answers of different revisions have different keys.
        seed: Seed sent with each request; greedy decoding should not need it.
        extra_body: Further fields of the request, part of the key. ``None`` removes a field: for OpenAI's
            reasoning models ``{"max_tokens": None, "temperature": None, "max_completion_tokens": 500}``; for
            Qwen3 on vLLM ``{"chat_template_kwargs": {"enable_thinking": False}}``.

    Raises:
        InputError: The ``openai`` package is missing, or an argument is out of range.
    """

    def __init__(
        self,
        model: str,
        base_url: str | list[str],
        api_key: str | None = None,
        max_new_tokens: PositiveInt = 24,
        concurrency: PositiveInt = 32,
        retry: RetryPolicy = _RETRY,
        revision: str | None = None,
        seed: NonNegativeInt = 0,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        if find_spec("openai") is None:
            raise InputError("the openai package is not installed", hint="pip install 'llm4sbr[openai]'")
        if not 1 <= concurrency <= _MOST_CONNECTIONS:
            raise InputError(f"concurrency must be in 1..{_MOST_CONNECTIONS}", value=concurrency)
        self.model, self.revision, self.concurrency, self.retry = model, revision, concurrency, retry
        self.urls = _split_urls(base_url)
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise InputError("the API key has characters that a request cannot carry")  # never show the key
        body = {"max_tokens": max_new_tokens, "temperature": 0, "seed": seed, **(extra_body or {})}
        self._body = {name: value for name, value in body.items() if value is not None}
        self._chat = Chat(model, self._body, retry.timeout, key, self.urls)

    def __repr__(self) -> str:
        return f"OpenAIEngine(model={self.model!r}, base_url={[hide_login(url) for url in self.urls]})"

    @property
    def identity(self) -> EngineIdentity:
        """Model name, revision and the fields of the request; without address, key and other secrets."""
        public = without_secrets(self._body)
        return EngineIdentity(
            model=ModelIdentity(self.model, digest(["openai-chat", self.model]), self.revision),
            decoding={"strategy": "greedy", "request": digest(public), **_plain(public)},
            chat_template="",
        )

    @property
    def batch_size(self) -> int:
        """Number of prompts per call: many rounds of requests, as the last round leaves connections idle."""
        return 64 * self.concurrency

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Answer every prompt once, yielding the replies that arrived since the last yield.

        At most four times ``concurrency`` prompts are in flight or unread.

        Raises:
            InputError: No server is reachable, or one refuses the key, the model or the parameters; the
                earlier replies are yielded first.
        """

        async def work(put: Callable[[Reply], None], room: asyncio.Semaphore) -> None:
            await self._answer_all(prompts, put, room)

        yield from in_background(work, unread=4 * self.concurrency)

    async def _answer_all(
        self, prompts: Sequence[str], put: Callable[[Reply], None], room: asyncio.Semaphore
    ) -> None:
        waiting = iter(enumerate(prompts))

        async def worker() -> None:
            while True:
                await room.acquire()
                if (item := next(waiting, None)) is None:
                    return
                put(Reply(item[0], await self._query(fleet, item[1])))
                fleet.check_failures()

        async with AsyncExitStack() as clients:
            members = [
                Member(hide_login(url), await clients.enter_async_context(self._chat.connect(url)))
                for url in self.urls
            ]
            fleet = Fleet(members, self.retry.backoff, self.retry.max_outage, max(8, self.concurrency))
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(prompts))):
                        group.create_task(worker())
            except ExceptionGroup as errors:  # the first error cancels the other workers
                raise errors.exceptions[0] from None

    async def _query(self, fleet: Fleet, prompt: str) -> Answer | Failure:
        tries, member = 0, None
        while True:
            member = await fleet.take(avoid=member)
            try:
                answer = await self._chat.query(member, prompt)
            except Unavailable as trouble:
                fleet.rest(member, trouble)  # no attempt of the prompt is used: `max_outage` limits the wait
                continue
            except Refused as trouble:
                fleet.reached(member)
                return Failure(f"refused: {trouble}")
            except BadAnswer as trouble:
                tries += 1
                if trouble.final or tries > self.retry.retries:
                    fleet.failed(f"{member.url}: {trouble}")
                    return Failure(f"{trouble} (tries: {tries})")
            else:
                fleet.answered(member)
                return answer
            finally:
                member.outstanding -= 1
            await asyncio.sleep(pause(self.retry.backoff, tries, _LONGEST_PAUSE))


def _split_urls(base_url: str | Sequence[str]) -> tuple[str, ...]:
    parts = base_url.split(",") if isinstance(base_url, str) else base_url
    urls = tuple(dict.fromkeys(part.strip().rstrip("/") for part in parts if part.strip()))
    for url in urls or ("",):
        if not _is_address(url):
            raise InputError(
                "base_url must be an http address",
                value=hide_login(url),
                hint="Such as http://localhost:8000/v1",
            )
    return urls


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port  # both raise ValueError on a malformed address
        host.encode("idna")
        if "[" in parts.netloc:
            IPv6Address(host)
    except ValueError:
        return False
    plain = url.isprintable() and not any(letter.isspace() for letter in url)
    return parts.scheme in {"http", "https"} and bool(host) and plain and port != 0


def _plain(body: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in body.items() if isinstance(value, str | int | float)}
