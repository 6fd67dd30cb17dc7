"""The API as an ASGI application: routes, key, errors, metrics and the log of requests."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from llm4sbr.serving.recommendation import Recommendation
from llm4sbr.serving.server.answers import BundleAnswers
from llm4sbr.serving.server.batcher import Batcher, Expired, Full
from llm4sbr.serving.server.exchange import Answer, Gone, Receive, Scope, Send, header, read_query
from llm4sbr.serving.server.exchange import rest_of_path as rest
from llm4sbr.serving.server.impressions import Impression, ImpressionLog
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.live_bundle import LiveBundle, Loaded
from llm4sbr.serving.server.messages import (
    Item,
    Items,
    Problem,
    Refusal,
    encode,
    whole_number,
)
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.openapi import schema
from llm4sbr.serving.server.options import Limits
from llm4sbr.serving.server.page import page_answers
from llm4sbr.serving.server.side_queue import Explainer, SideQueue

Handler = Callable[[Scope, Receive], Awaitable[Answer]]

ITEMS = "/v1/items/"
_OPEN = ("/health", "/ready")  # routes that need no key
_MOST_ITEMS = 100  # of one search
_SEARCHES = 64  # that may wait
_TEXT = b"text/plain; version=1.0.0; charset=utf-8"
_RETRY = ((b"retry-after", b"1"),)


class App:
    """Answers requests. While `draining`, it closes each connection with its answer.

    Args:
        live: The bundle that answers.
        batcher: Scores requests in batches.
        limits: Limits of a request.
        metrics: Metrics of the server.
        log: Log of requests.
        compared: A bundle to compare with, under ``/v1/compared/``; None for none.
        page: Whether ``/`` is a page to try the server.
        impressions: Impression log; None for none.
        key: API key; None if none is needed.
        log_sessions: Whether the log shows item ids.
    """

    def __init__(
        self,
        live: LiveBundle,
        batcher: Batcher,
        limits: Limits,
        metrics: Metrics,
        log: JsonLog,
        *,
        compared: LiveBundle | None = None,
        page: bool = True,
        impressions: ImpressionLog | None = None,
        key: str | None = None,
        log_sessions: bool = False,
    ) -> None:
        self.live, self.batcher, self.limits, self.metrics, self.log = live, batcher, limits, metrics, log
        self.bundles = (live,) if compared is None else (live, compared)
        self.impressions = impressions
        self.key = None if key is None else key.encode()
        self.draining, self.in_flight = False, 0
        explainer = Explainer(batcher)
        given = batcher, explainer, limits
        answers = BundleAnswers(live, *given, shown=self._shown, log_sessions=log_sessions)
        kinds = answers.to_recommend.type, answers.to_explain.type
        self._schema = encode(schema(*kinds, has_key=key is not None, compared=compared is not None))
        self._page = page_answers() if page else {}
        self._searches = SideQueue("search", _SEARCHES)
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/recommend": ("POST", answers.recommend),
            "/v1/explain": ("POST", answers.explain),
            "/v1/items": ("GET", self._search),
            ITEMS: ("GET", self._item),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
            **dict.fromkeys(self._page, ("GET", self._static)),
        }
        if compared is not None:
            beside = BundleAnswers(compared, *given, log_sessions=log_sessions)
            self._routes["/v1/compared/recommend"] = "POST", beside.recommend
            self._routes["/v1/compared/explain"] = "POST", beside.explain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError("only HTTP is served")
        began, path = time.perf_counter(), scope["path"]
        route = ITEMS if path.startswith(ITEMS) else path if path in self._routes else "other"
        self.in_flight += 1
        try:
            answer = await self._answer(route, scope, receive)
            await answer.send(send, close=self.draining)
        except Gone:
            answer = Answer(b"", 499)
        finally:
            self.in_flight -= 1
        took = time.perf_counter() - began
        self.metrics.request(route, answer.status).inc()
        self.metrics.seconds(route).observe(took)
        if self.log.requests:
            further = answer.logged or {}
            self.log.info(
                "request",
                method=scope["method"],
                route=route,
                status=answer.status,
                ms=round(took * 1000, 3),
                **further,
            )

    async def _answer(self, route: str, scope: Scope, receive: Receive) -> Answer:
        try:
            self._check_key(route, scope)
            if route == "other":
                raise Refusal(404, "there is no such path; see /openapi.json", "path")
            method, handler = self._routes[route]
            if scope["method"] != method:
                allow = ((b"allow", method.encode()),)
                raise Refusal(405, f"this path answers {method}", "method", allow)
            return await handler(scope, receive)
        except Full:
            return self._refused(Refusal(503, "too much waits", None, _RETRY))
        except Expired:
            return self._refused(Refusal(503, f"no answer within {self.limits.timeout_s:g} s", None, _RETRY))
        except Refusal as error:
            return self._refused(error)
        except (Gone, asyncio.CancelledError):
            raise
        except Exception as error:  # the client learns that it failed, the log why
            self.log.error("failure", route=route, problem=f"{type(error).__name__}: {error}")
            return Answer(encode(Problem("the server failed; its log says why", None)), 500)

    def _refused(self, error: Refusal) -> Answer:
        problem = Problem(error.problem, error.field)
        logged = {"problem": error.problem, "field": error.field} if error.status != 404 else None
        return Answer(encode(problem), error.status, headers=error.headers, logged=logged)

    def _check_key(self, route: str, scope: Scope) -> None:
        if self.key is None or route in _OPEN or route in self._page:
            return
        given = header(scope, b"x-api-key")
        if given is None:
            scheme, _, token = (header(scope, b"authorization") or b"").partition(b" ")
            given = token.strip() if scheme.lower() == b"bearer" else b""
        if not hmac.compare_digest(given, self.key):
            said = "the API key is missing or wrong"
            raise Refusal(401, said, "Authorization", ((b"www-authenticate", b"Bearer"),))

    def _shown(self, loaded: Loaded, sessions: Sequence[list[str]], found: Sequence[Recommendation]) -> None:
        for one in found:
            self.metrics.views(one.view).inc()
        if self.impressions is not None:
            now = datetime.now(UTC)
            self.impressions.add(
                Impression(now, loaded.fingerprint, session, list(one.item_ids), list(one.scores), one.view)
                for session, one in zip(sessions, found, strict=True)
            )

    async def _search(self, scope: Scope, receive: Receive) -> Answer:
        query = read_query(scope, "query", "limit")
        text = query.get("query")
        limit = whole_number(query.get("limit", "20"), "limit", 1, _MOST_ITEMS)
        if text is not None and not 1 <= len(text) <= self.limits.id_length:
            raise Refusal(422, f"this must be a text of 1 to {self.limits.id_length} characters", "query")
        loaded = self.live.now
        total, columns = await self._searches.run(loaded.search.find, text or "", limit)
        ids, titles = loaded.catalogue.item_ids, loaded.catalogue.titles
        items = [Item(ids[column], titles[column]) for column in columns]
        return Answer(encode(Items(loaded.fingerprint, total, items)))

    async def _item(self, scope: Scope, receive: Receive) -> Answer:
        read_query(scope)
        catalogue, item = self.live.now.catalogue, rest(scope, ITEMS, "id")
        number = catalogue.index.get(item)
        if number is None:
            raise Refusal(404, "the catalogue has no such item", "id")
        return Answer(encode(Item(item, catalogue.title(number))))

    async def _health(self, scope: Scope, receive: Receive) -> Answer:
        return Answer(b'{"status":"alive"}')

    async def _ready(self, scope: Scope, receive: Receive) -> Answer:
        if self.draining:
            raise Refusal(503, "the server is shutting down")
        found: dict[str, Any] = {"status": "ready", **_described(self.live.now)}
        for compared in self.bundles[1:]:
            found["compared"] = _described(compared.now)
        return Answer(encode(found))

    async def _metrics(self, scope: Scope, receive: Receive) -> Answer:
        return Answer(self.metrics.text(), kind=_TEXT)

    async def _openapi(self, scope: Scope, receive: Receive) -> Answer:
        return Answer(self._schema)

    async def _static(self, scope: Scope, receive: Receive) -> Answer:
        return self._page[scope["path"]]


def _described(loaded: Loaded) -> dict[str, Any]:
    items = loaded.catalogue.num_items
    return {"bundle": loaded.fingerprint, "items": items, "model": loaded.model, "views": loaded.views}
