"""Recommendations and explanations by one bundle, from a request's body to the answer's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llm4sbr.contracts.errors import InputError
from llm4sbr.serving.recommendation import Recommendation
from llm4sbr.serving.server.batcher import Batcher, Filters, Job
from llm4sbr.serving.server.exchange import Answer, Receive, Scope, read_body, read_query
from llm4sbr.serving.server.live_bundle import LiveBundle, Loaded
from llm4sbr.serving.server.messages import (
    ExplainAnswer,
    ExplainRequest,
    Reader,
    RecommendAnswer,
    RecommendRequest,
    Refusal,
    Unknown,
    encode,
    explain_type,
    recommend_type,
)
from llm4sbr.serving.server.options import Limits
from llm4sbr.serving.server.side_queue import Explainer

# Notes what was recommended: the bundle, the sessions, and their recommendations.
Shown = Callable[[Loaded, Sequence[list[str]], Sequence[Recommendation]], None]


class BundleAnswers:
    """Handlers of the routes that a bundle answers.

    Args:
        live: The bundle.
        batcher: Scores sessions in batches.
        explainer: Explains beside them.
        limits: Limits of a request.
        shown: Called with each answer's recommendations; None for no call.
        log_sessions: Whether the log shows item ids.
    """

    def __init__(
        self,
        live: LiveBundle,
        batcher: Batcher,
        explainer: Explainer,
        limits: Limits,
        *,
        shown: Shown | None = None,
        log_sessions: bool = False,
    ) -> None:
        self.live, self.batcher, self.explainer, self.limits = live, batcher, explainer, limits
        self.shown, self.log_sessions = shown, log_sessions
        self.to_recommend: Reader[RecommendRequest] = Reader(recommend_type(limits))
        self.to_explain: Reader[ExplainRequest] = Reader(explain_type(limits))

    async def recommend(self, scope: Scope, receive: Receive) -> Answer:
        """Answer ``/v1/recommend``."""
        asked = self.to_recommend.read(await self._body(scope, receive))
        loaded = self.live.now
        only, without = loaded.listed(asked.only), loaded.listed(asked.without)
        if asked.only is not None and not only.known:
            raise Refusal(422, "no item of this list is in the catalogue", "only")
        filters = Filters(
            asked.seen,
            None if asked.only is None else only.known,
            None if asked.without is None else without.known,
        )
        observe = None if self.live.observe is None else partial(self.live.observe, loaded)
        job = Job(loaded, asked.sessions, asked.k, filters, self._deadline(), observe)
        try:
            found = await self.batcher.submit(job)
        except InputError as error:
            if asked.only is None and asked.without is None:
                raise
            raise Refusal(422, error.problem, "only" if asked.without is None else "without") from None
        if self.shown is not None:
            self.shown(loaded, asked.sessions, found)
        told = RecommendAnswer(loaded.fingerprint, found, Unknown(only.unknown, without.unknown))
        return self._answer(told, {"clicks": asked.sessions}, sessions=len(found), k=asked.k)

    async def explain(self, scope: Scope, receive: Receive) -> Answer:
        """Answer ``/v1/explain``."""
        asked = self.to_explain.read(await self._body(scope, receive))
        loaded = self.live.now
        index = loaded.catalogue.index
        if asked.item not in index:
            raise Refusal(422, "the catalogue has no such item", "item")
        if not any(item in index for item in asked.session):
            raise Refusal(422, "no item of the session is in the catalogue", "session")
        found = await self.explainer.explain(loaded, asked.session, asked.item, self._deadline())
        told = ExplainAnswer(loaded.fingerprint, found)
        return self._answer(told, {"clicks": asked.session, "item": asked.item})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        read_query(scope)  # neither route has parameters
        return await read_body(scope, receive, self.limits.body_bytes, self.limits.timeout_s)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.limits.timeout_s

    def _answer(self, told: RecommendAnswer | ExplainAnswer, ids: dict[str, Any], **logged: int) -> Answer:
        ids = ids if self.log_sessions else {}
        return Answer(encode(told), logged={**logged, "bundle": told.bundle, **ids})
