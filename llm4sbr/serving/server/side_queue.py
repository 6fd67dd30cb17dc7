"""Work beside the batches: searches and explanations, each in a thread with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llm4sbr.serving.explain import Explanation
from llm4sbr.serving.server.batcher import Batcher, Expired, Full
from llm4sbr.serving.server.live_bundle import Loaded

_MOST = 16  # explanations that may wait
_PAUSE_S = 0.05  # longest wait of a step for batches: under full load an explanation is slow, and ends


T = TypeVar("T")


class SideQueue:
    """Runs functions in one thread, one after the other.

    Args:
        name: Name of the thread.
        most: Number of functions that may wait or run.
    """

    def __init__(self, name: str, most: int) -> None:
        self.most, self._thread, self._waiting = most, ThreadPoolExecutor(1, name), 0

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Wait for the result of a function.

        Raises:
            Full: If too many wait.
        """
        if self._waiting >= self.most:
            raise Full
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        finally:
            self._waiting -= 1


class Explainer:
    """Explains items, one after the other.

    An explanation scores a session many times. Its steps are no larger than a batch, and each waits for a
    moment in which no batch is due.

    Args:
        batcher: Batches of recommendations, which go first.
    """

    def __init__(self, batcher: Batcher) -> None:
        self.batcher, self._queue = batcher, SideQueue("explain", _MOST)

    async def explain(
        self, loaded: Loaded, session: Sequence[str], item: str, deadline: float
    ) -> Explanation:
        """Wait for an explanation.

        Args:
            loaded: Bundle that the request began with.
            session: Ids of the clicked items.
            item: Id of the item.
            deadline: Time of the event loop after which the client gets no answer; the next step is the last.

        Raises:
            Full: If too many explanations wait.
            Expired: If there was no answer before the deadline.
        """
        ended = threading.Event()

        def between() -> None:
            if ended.is_set():  # nobody waits for the answer
                raise Expired
            self.batcher.wait_until_idle(_PAUSE_S)

        def explained() -> Explanation:
            between()
            return loaded.recommender.explain(session, item, between)

        try:
            async with asyncio.timeout_at(deadline):
                return await self._queue.run(explained)
        except TimeoutError:
            raise Expired from None
        finally:
            ended.set()
