"""Metrics of the server, in the text format of Prometheus."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts requests, batches, views, reloads, impressions and questions of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("llm4sbr_requests", "Requests", ("route", "status"), registry=self.registry)
        self._seconds = Histogram(
            "llm4sbr_request_seconds",
            "Time of a request",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "llm4sbr_batch_sessions", "Sessions in a batch", buckets=_SIZES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "llm4sbr_batch_seconds", "Time to score a batch", buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("llm4sbr_queue_sessions", "Sessions that wait", registry=self.registry)
        self._views = Counter(
            "llm4sbr_session_views", "Recommended sessions by their views", ("view",), registry=self.registry
        )
        self._bundle = Gauge(
            "llm4sbr_bundle", "Loaded bundles", ("fingerprint", "items", "role"), registry=self.registry
        )
        self._of_role: dict[str, tuple[str, str, str]] = {}
        self._reloads = Counter(
            "llm4sbr_reloads", "Reloads of the bundle", ("result",), registry=self.registry
        )
        self._impressions = Counter(
            "llm4sbr_impressions", "Impressions, logged or lost", ("result",), registry=self.registry
        )
        self._asked = Counter(
            "llm4sbr_asked", "Uncertain sessions for the language model", ("result",), registry=self.registry
        )
        self.asked_waiting = Gauge(
            "llm4sbr_asked_waiting", "Sessions that wait for the language model", registry=self.registry
        )
        self.answered_views = Gauge(
            "llm4sbr_answered_views", "Sessions whose views were added", registry=self.registry
        )
        # A look-up of a child takes longer than its count.
        self.request = cache(lambda route, status: self._requests.labels(route, str(status)))
        self.seconds = cache(lambda route: self._seconds.labels(route))
        self.views = cache(lambda view: self._views.labels(view))
        self.reloads = cache(lambda result: self._reloads.labels(result))
        self.impressions = cache(lambda result: self._impressions.labels(result))
        self.asked = cache(lambda result: self._asked.labels(result))
        for result in ("swapped", "kept"):
            self.reloads(result)
        for result in ("written", "dropped", "failed"):
            self.impressions(result)
        for result in ("queued", "waiting", "known", "full", "skipped", "failed"):
            self.asked(result)

    def loaded(self, role: str, fingerprint: str, items: int) -> None:
        """Note the bundle that has a role: ``answers`` or ``compared``."""
        if role in self._of_role:
            self._bundle.remove(*self._of_role[role])
        self._of_role[role] = fingerprint, str(items), role
        self._bundle.labels(*self._of_role[role]).set(1)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self.registry)
