"""Uncertain sessions for a language model beside the server, and the views that it finds."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.uncertainty import entropy
from llm4sbr.serving.ask_queue import MOST_VIEWS, Asked, AskQueue, Published
from llm4sbr.serving.known_views import SessionViews, ViewState
from llm4sbr.serving.recommendation import RowScores
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.live_bundle import LiveBundle, Loaded
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.options import Questions

_WINDOW = 2048  # latest entropies, of which the most uncertain share is asked about
_EVERY = 64  # entropies between two thresholds
_HELD = 4096  # sessions that may wait for a slow disk
OF_A_CORE = 0.05  # share of one core's time for entropies
_BURST_S = 1.0  # seconds of it that may be saved up


class Threshold:
    """The entropy that a share of the latest sessions exceeds.

    Args:
        share: Share of the sessions.

    >>> threshold = Threshold(0.5)
    >>> [threshold.exceeded(nats) for nats in (1.0, 2.0, 0.5, 3.0)]  # two sessions are the least for a half
    [False, True, False, True]
    """

    def __init__(self, share: float) -> None:
        self.share, self.least = share, math.ceil(1 / share)
        self._latest: deque[float] = deque(maxlen=_WINDOW)
        self._count, self._nats = 0, math.inf

    def exceeded(self, nats: float) -> bool:
        """Note the entropy of a session, and return whether it is among the most uncertain ones."""
        self._latest.append(nats)
        self._count += 1
        if len(self._latest) < self.least:
            return False
        if self._count <= _EVERY or not self._count % _EVERY:
            self._nats = float(np.quantile(np.fromiter(self._latest, float), 1 - self.share))
        return nats >= self._nats


class Asking:
    """Queues the uncertain sessions of a bundle, and adds the views that come back to it.

    The entropies are computed where the scores are, for at most a twentieth of a core's time: under full load
    they are those of some of the sessions. Everything else happens in a thread. Whatever the disk or the
    language model do, no answer waits for them.

    Args:
        live: Bundle that answers.
        options: Folder, share and limits.
        metrics: Where sessions are counted.
        log: Where failures are logged.

    Raises:
        InputError: If the bundle has no views of a language model, or the folder cannot be used.
    """

    def __init__(self, live: LiveBundle, options: Questions, metrics: Metrics, log: JsonLog) -> None:
        assert options.ask is not None
        if _stored_views(live.now) is None:
            raise InputError(
                "this bundle has no views of a language model, so there is nothing to ask",
                path=live.path,
                hint="Leave out --ask, or export a run with --views.spec llm",
            )
        AskQueue(options.ask).close()  # a folder that cannot be used is an error at the start
        self.live, self.options, self.metrics, self.log = live, options, metrics, log
        self._held: deque[tuple[Loaded, list[int], float]] = deque()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threshold = Threshold(options.ask_share)
        self._credit, self._at = _BURST_S, time.monotonic()
        self._views: dict[bytes, Published] = {}  # further views of the bundle, the oldest first
        self._spec, self._seen, self._failing = "", 0, False
        self._thread = threading.Thread(target=self._work, name="asking", daemon=True)
        self._thread.start()
        live.observe = self.observe

    def observe(
        self,
        loaded: Loaded,
        sessions: Sequence[list[int]],
        scores: RowScores,
        states: Sequence[ViewState],
    ) -> None:
        """Hold the uncertain ones of some sessions for the queue.

        Args:
            loaded: Bundle of the scores.
            sessions: Item numbers of the clicks.
            scores: Scores over the catalogue.
            states: State of the sessions' views.

        Shapes:
            - scores: ``(B, V)``
        """
        for row, (clicks, state) in enumerate(zip(sessions, states, strict=True)):
            if state == "known":
                continue
            began = time.monotonic()
            with self._lock:
                self._credit = min(_BURST_S, self._credit + OF_A_CORE * (began - self._at))
                self._at = began
                affordable = self._credit > 0
            if not affordable or len(self._held) >= _HELD:
                self.metrics.asked("skipped").inc()
                continue
            nats = float(entropy(scores[row : row + 1]))  # one row stays in the processor's cache
            with self._lock:
                self._credit -= time.monotonic() - began
                uncertain = math.isfinite(nats) and self._threshold.exceeded(nats)
            if uncertain:
                self._held.append((loaded, clicks, nats))

    def close(self) -> None:
        """Queue what is held, and end the thread."""
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        queue: AskQueue | None = None
        ended = False
        while not ended:
            ended = self._end.wait(self.options.ask_s)
            held = [self._held.popleft() for _ in range(len(self._held))]
            try:
                queue = queue or AskQueue(self.options.ask or "")
                self._add(queue, held)
                held = []
                self._exchange(queue)
                self._failing = False
            except Exception as error:  # a full disk costs the queue alone
                self.metrics.asked("failed").inc(len(held))
                if not self._failing:
                    self.log.error("asking", lost=len(held), problem=str(error))
                self._failing = True
        if queue is not None:
            queue.close()

    def _add(self, queue: AskQueue, held: list[tuple[Loaded, list[int], float]]) -> None:
        by_spec: dict[str, list[Asked]] = {}
        for loaded, clicks, nats in held:
            views, catalogue = _stored_views(loaded), loaded.catalogue
            if views is not None:
                items = [catalogue.item_ids[item - 1] for item in clicks]
                found = Asked(catalogue.session_key(clicks), items, nats)
                by_spec.setdefault(views.spec.fingerprint, []).append(found)
        for spec, sessions in by_spec.items():
            for result, count in queue.add(sessions, spec, self.options.ask_limit).items():
                self.metrics.asked(result).inc(count)
        self.metrics.asked_waiting.set(len(queue))

    def _exchange(self, queue: AskQueue) -> None:
        """Add the views that were published since the last look."""
        loaded = self.live.now
        views = _stored_views(loaded)
        if views is None:
            return
        if views.spec.fingerprint != self._spec:
            self._spec, self._seen, self._views = views.spec.fingerprint, 0, {}
        self._seen, published = queue.published(self._spec, self._seen)
        for one in published:
            self._views.pop(one.key, None)
            self._views[one.key] = one
        for key in list(self._views)[: len(self._views) - MOST_VIEWS]:
            del self._views[key]
        if self._seen == loaded.further:
            return
        keys, rows = _rows(views, list(self._views.values()))
        if self.live.exchange(loaded, loaded.with_views(views.with_further(keys, rows), self._seen)):
            self.metrics.answered_views.set(len(keys))


def _stored_views(loaded: Loaded) -> SessionViews | None:
    """Views of a language model; None for a bundle without them."""
    views = loaded.recommender.views
    return views if views is not None and views.stored is not None else None


def _rows(views: SessionViews, published: list[Published]) -> tuple[list[bytes], dict[str, Tensor]]:
    """Keys and rows of published views, without those of another size."""
    assert views.stored is not None
    dense = "vectors" in views.stored
    shape = views.stored["vectors" if dense else "weights"].shape[1:]
    numbers = shape.numel()
    sizes = (0, 4 * numbers) if dense else (4 * numbers, 2 * numbers)
    fitting = [one for one in published if (len(one.ids), len(one.weights)) == sizes]
    values = _tensor(b"".join(one.weights for one in fitting), "<f4" if dense else "<f2", shape)
    rows = {"vectors": values} if dense else {"weights": values}
    if not dense:
        rows["ids"] = _tensor(b"".join(one.ids for one in fitting), "<i4", shape)
    return [one.key for one in fitting], rows


def _tensor(raw: bytes, kind: str, shape: torch.Size) -> Tensor:
    return torch.from_numpy(np.frombuffer(raw, kind).reshape(-1, *shape).copy())
