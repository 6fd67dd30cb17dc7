"""Run a coroutine in a separate thread and iterate over its results from ordinary code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 1.0  # seconds for the thread to end
Work = Callable[[Callable[[T], None], asyncio.Semaphore], Coroutine[Any, Any, None]]


def in_background(work: Work[T], unread: int) -> Iterator[list[T]]:
    """Run ``work(put, room)`` in a thread and yield its results in lists, each since the last yield.

    With a thread, requests continue while the caller writes, and the function also works where an event loop
    already runs (a notebook). A slow caller gets longer lists: no timer decides their length.

    Args:
        work: Coroutine that acquires ``room`` before each task and calls ``put`` once when the task is done.
        unread: Maximum number of tasks that are started and whose results are not yet read.

    Raises:
        Exception: The error that stopped ``work``, after all its results were yielded.
    """
    loop, room = asyncio.new_event_loop(), asyncio.Semaphore(unread)
    done: SimpleQueue[T | None] = SimpleQueue()  # None: the thread has ended
    task = loop.create_task(work(done.put, room))

    def drive() -> None:
        try:
            loop.run_until_complete(asyncio.wait([task]))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
            done.put(None)

    def release(count: int) -> None:
        for _ in range(count):
            room.release()

    thread = threading.Thread(target=drive, name="llm4sbr-requests", daemon=True)
    thread.start()
    try:
        ended = False
        while not ended:
            seen = [done.get()]
            while not done.empty():
                seen.append(done.get())
            ended = seen[-1] is None
            if group := [thing for thing in seen if thing is not None]:
                with suppress(RuntimeError):  # the loop is closed: no task waits for room
                    loop.call_soon_threadsafe(release, len(group))
                yield group
        task.result()
    finally:  # also if the caller stops early or presses Ctrl-C
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join(_PATIENCE)  # it is a daemon: a look-up of a server's name cannot be cancelled
        if task.done() and not task.cancelled():
            task.exception()  # mark as retrieved; otherwise asyncio logs it later
