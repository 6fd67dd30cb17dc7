"""One request and its answer, between ASGI and the routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from llm4sbr.serving.server.messages import Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"
# A client that is still sending when its connection is closed sees no answer: some bytes too many are read.
_DISCARDED = 1 << 24
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Answer(NamedTuple):
    """An answer of HTTP."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    logged: dict[str, Any] | None = None  # further fields of the log's line

    async def send(self, send: Send, *, close: bool) -> None:
        """Send it; with `close` the connection ends with it."""
        headers = [
            (b"content-type", self.kind),
            (b"content-length", str(len(self.body)).encode()),
            *_SAFE,
            *self.headers,
        ]
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Gone(Exception):
    """The client has closed the connection."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of a header; of several equal names the first."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


async def read_body(scope: Scope, receive: Receive, most: int, seconds: float) -> bytes:
    """Read a body of JSON.

    Args:
        scope: Scope of ASGI.
        receive: Receiver of ASGI.
        most: Bytes that a body may have.
        seconds: Time for it to arrive.

    Raises:
        Refusal: If it is of another type (415), too large (413) or too slow (408).
        Gone: If the client has gone.
    """
    kind = header(scope, b"content-type") or b""
    name, _, parameters = kind.partition(b";")
    charset = parameters.strip().lower().removeprefix(b"charset=").strip(b'"')
    if name.strip().lower() != JSON or charset not in (b"", b"utf-8"):
        raise Refusal(415, "the body must be application/json in UTF-8", "Content-Type")
    if header(scope, b"content-encoding") not in (None, b"identity"):
        raise Refusal(415, "the body must not be compressed", "Content-Encoding")
    length = header(scope, b"content-length")
    large = Refusal(413, f"the body is larger than {most} bytes", "body", ((b"connection", b"close"),))
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
                part, more = message.get("body", b""), message.get("more_body", False)
                size += len(part)
                if size > max(most, _DISCARDED):
                    break
                if size <= most:
                    parts.append(part)
    except TimeoutError:
        if size > most:
            raise large from None
        said = f"the body did not arrive within {seconds:g} s"
        raise Refusal(408, said, "body", ((b"connection", b"close"),)) from None
    if size > most or (length is not None and length.isdigit() and int(length) > most):
        raise large
    return b"".join(parts)


def read_query(scope: Scope, *known: str) -> dict[str, str]:
    """Read the parameters of a query.

    Raises:
        Refusal: If one is unknown, is there twice, or is not UTF-8.
    """
    text = scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError:  # of which a UnicodeDecodeError is one
        raise Refusal(400, "the query is not text in UTF-8, or has too many parameters", "query") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise Refusal(422, f"there is no such parameter; there is {', '.join(known) or 'none'}", name)
        if name in found:
            raise Refusal(422, "this parameter is there twice", name)
        found[name] = value
    return found


def rest_of_path(scope: Scope, prefix: str, field: str) -> str:
    """The path after a prefix, decoded.

    Raises:
        Refusal: If it is not UTF-8.
    """
    try:
        whole = unquote_to_bytes(scope["raw_path"]).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "this is not text in UTF-8", field) from None
    return whole.removeprefix(prefix)
