"""A coroutine in a thread of its own, whose results an ordinary loop takes as they come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[Callable[[T], None], asyncio.Semaphore], Coroutine[Any, Any, None]]


def in_background(work: Work[T], unread: int) -> Iterator[list[T]]:
    """Run ``work(put, room)`` in a thread and yield what it put since the last look, as a list.

    A thread, so that requests go on while the caller writes, and so that it also works where an event loop
    already runs (a notebook). A slow caller gets longer lists: no timer decides their length.

    Args:
        work: Acquires ``room`` before it begins something and calls ``put`` once when that is done.
        unread: At most this many things are begun and not yet read here.

    Raises:
        Exception: What stopped ``work``, after everything it had put was yielded.
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
                with suppress(RuntimeError):  # the loop is closed: nobody waits for room
                    loop.call_soon_threadsafe(release, len(group))
                yield group
        task.result()
    finally:  # also where the caller leaves early, or presses Ctrl-C
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        if task.done() and not task.cancelled():
            task.exception()  # seen; else asyncio complains about it later
