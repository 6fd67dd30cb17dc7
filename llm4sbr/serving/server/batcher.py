"""Micro-batching: concurrent requests are scored together, in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm4sbr.serving.recommendation import Observer, Recommendation
from llm4sbr.serving.server.live_bundle import Loaded
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.options import Batching


class Full(Exception):
    """The queue has no room."""


class Expired(Exception):
    """The request waited too long."""


@dataclass(frozen=True)
class Filters:
    """Filters of a request; requests with equal ones are scored together."""

    seen: bool = True
    only: tuple[str, ...] | None = None
    without: tuple[str, ...] | None = None


@dataclass(eq=False)
class Job:
    """A request in the queue.

    Args:
        loaded: Bundle that the request began with.
        sessions: Sessions by the shop's ids.
        k: Number of items.
        filters: Filters.
        deadline: Time of the event loop after which nobody waits for the answer.
        observe: Called with the sessions' scores; equal in all requests of a bundle.
        future: Receives the recommendations.
    """

    loaded: Loaded
    sessions: Sequence[Sequence[str]]
    k: int
    filters: Filters
    deadline: float
    observe: Observer | None = None
    future: asyncio.Future[list[Recommendation]] = field(default_factory=lambda: _future())


class Batcher:
    """Scores requests in batches.

    Args:
        options: Size of batches and of the queue.
        metrics: Where batches are counted.
    """

    def __init__(self, options: Batching, metrics: Metrics) -> None:
        self.options, self.metrics = options, metrics
        self._queue: deque[Job] = deque()
        self._waiting = 0  # sessions in the queue
        lock = threading.Lock()
        self._change, self._idle = threading.Condition(lock), threading.Condition(lock)
        self._closed, self._busy = False, 0  # threads that gather or score a batch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"batches-{number}", daemon=True)
            for number in range(options.workers)
        ]

    def start(self) -> None:
        """Begin, inside the event loop."""
        self._loop = asyncio.get_running_loop()
        for one in self._threads:
            one.start()

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for one in self._threads:
            if one.is_alive():
                one.join()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no batch is due, in a thread, but at most so long.

        Args:
            seconds: Longest wait.
        """
        with self._idle:
            self._idle.wait_for(lambda: not self._queue and not self._busy, seconds)

    async def submit(self, job: Job) -> list[Recommendation]:
        """Wait for the recommendations of a request.

        Raises:
            Full: If too many sessions wait.
            Expired: If the request waited beyond its deadline.
        """
        with self._change:
            # A request larger than the queue is served when nothing waits.
            if self._closed or (self._waiting and self._waiting + len(job.sessions) > self.options.queue):
                raise Full
            self._queue.append(job)
            job.future.add_done_callback(lambda _: self._abandon(job))
            self._waiting += len(job.sessions)
            self.metrics.waiting.set(self._waiting)
            self._change.notify()
        try:
            async with asyncio.timeout_at(job.deadline):
                return await job.future
        except TimeoutError:
            raise Expired from None

    def _abandon(self, job: Job) -> None:
        """Take a request out of the queue whose client does not wait any more."""
        if not job.future.cancelled():
            return
        with self._change:
            if job in self._queue:
                self._queue.remove(job)
                self._waiting -= len(job.sessions)
                self.metrics.waiting.set(self._waiting)

    def _work(self) -> None:
        while (jobs := self._next_batch()) is not None:
            if not jobs:
                continue
            began = time.perf_counter()
            answers = scored(jobs)
            with self._change:
                self._end()
            self.metrics.batch.observe(sum(len(job.sessions) for job in jobs))
            self.metrics.batch_seconds.observe(time.perf_counter() - began)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_deliver, jobs, answers)
            except RuntimeError:  # the loop was closed at the end of the grace time
                return

    def _end(self) -> None:
        """Count a batch as ended, with the lock."""
        self._busy -= 1
        if not self._queue and not self._busy:
            self._idle.notify_all()

    def _may_begin(self) -> bool:
        """Whether a batch may begin: beside another one only if it is full, for small ones cost more."""
        return bool(self._queue) and (
            not self._busy or self._closed or self._waiting >= self.options.max_size
        )

    def _next_batch(self) -> list[Job] | None:
        with self._change:
            while not self._may_begin():
                if self._closed and not self._queue:
                    return None
                self._change.wait()
            self._busy += 1
            stop = time.monotonic() + self.options.window_ms / 1000
            while self._waiting < self.options.max_size and not self._closed:
                if (left := stop - time.monotonic()) <= 0:
                    break
                self._change.wait(left)
            if not self._queue:  # another thread was faster, or the clients have gone
                self._end()
                return []
            jobs: list[Job] = []
            size = 0
            while self._queue and (not jobs or size + len(self._queue[0].sessions) <= self.options.max_size):
                jobs.append(self._queue.popleft())
                size += len(jobs[-1].sessions)
            self._waiting -= size
            self.metrics.waiting.set(self._waiting)
            return jobs


def scored(jobs: Sequence[Job]) -> list[list[Recommendation] | Exception]:
    """Recommendations of each request, or its error; requests with the same bundle and filters together."""
    answers: list[list[Recommendation] | Exception] = [[]] * len(jobs)
    groups: dict[tuple[int, Filters], list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault((id(job.loaded), job.filters), []).append(place)
    for places in groups.values():
        together = [jobs[place] for place in places]
        try:
            found: Sequence[list[Recommendation] | Exception] = _recommended(together)
        except Exception:  # one request's error is not that of the others
            found = [_alone(job) for job in together]
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def _alone(job: Job) -> list[Recommendation] | Exception:
    try:
        return _recommended([job])[0]
    except Exception as error:
        return error


def _recommended(jobs: Sequence[Job]) -> list[list[Recommendation]]:
    filters, most = jobs[0].filters, max(job.k for job in jobs)
    found = jobs[0].loaded.recommender.recommend(
        [session for job in jobs for session in job.sessions],
        most,
        seen=filters.seen,
        only=filters.only,
        without=filters.without,
        observe=jobs[0].observe,
    )
    answers, begin = [], 0
    for job in jobs:
        part = found[begin : begin + len(job.sessions)]
        answers.append(part if job.k == most else [_first(one, job.k) for one in part])
        begin += len(job.sessions)
    return answers


def _first(found: Recommendation, k: int) -> Recommendation:
    return replace(found, item_ids=found.item_ids[:k], titles=found.titles[:k], scores=found.scores[:k])


def _future() -> asyncio.Future[list[Recommendation]]:
    return asyncio.get_running_loop().create_future()


def _deliver(jobs: Sequence[Job], answers: Sequence[list[Recommendation] | Exception]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if job.future.done():  # the client has gone
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
