"""Progress display and graceful shutdown of a long run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 30.0  # seconds between lines if the output is not a terminal
_GRACE = 1.5  # seconds for the batch in progress after a signal
_AGAIN = 0.5  # seconds between further alarms, until the work has stopped


T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """Ends work that a stop request interrupts; no handler of ordinary exceptions catches it."""


class Meter:
    """A progress bar with rate and time left on a terminal; elsewhere a line every half minute.

    Args:
        what: Description of the work, shown before the counts.
        total: Number of steps.
        shown: Whether to show progress at all.
    """

    def __init__(self, what: str, total: int, *, shown: bool = True) -> None:
        self.what, self.total, self.done = what, total, 0
        self._start = self._last_line = time.monotonic()
        self._console = Console(stderr=True, quiet=not shown)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
        )
        self._task = self._bar.add_task(what, total=total, rate="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the meter was created."""
        return time.monotonic() - self._start

    def advance(self, count: int) -> None:
        """Advance by a number of steps."""
        self.done += count
        rate = self.done / max(self.seconds, 1e-9)
        self._bar.update(self._task, advance=count, rate=f"{rate:.1f}/s")
        if self._bar.disable and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            left = (self.total - self.done) / rate if rate else float("inf")
            self._console.print(
                f"{self.what}: {self.done}/{self.total}, {rate:.1f}/s, {left / 60:.0f} min left",
                highlight=False,
            )


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop after the batch; a second one acts at once.

    A batch that takes longer than 1.5 seconds is interrupted where `interruptible` allows it: a server may
    never answer. Only the main thread can handle signals; in other threads this class does nothing.
    """

    def __init__(self) -> None:
        self._requested = False
        self._parent: int | None = None
        self._signal_helpers: Callable[[int], None] | None = None
        self._before: dict[int, object] = {}
        self._may_interrupt = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
            if hasattr(signal, "SIGALRM"):  # not on Windows
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @property
    def requested(self) -> bool:
        """Whether to stop; a helper process also stops when the process that started it is gone."""
        return self._requested or (self._parent is not None and self._parent != os.getppid())

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run a block that a stop request may interrupt anywhere, with `Stopped`."""
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False

    def take_over(self, signal_helpers: Callable[[int], None] | None, *, helper: bool) -> None:
        """Replace Lightning's signal handlers, in a run of one process or several.

        Lightning's handler synchronises the processes at an arbitrary point of their work, and waits forever
        for a process that has finished its share.

        Args:
            signal_helpers: Function that sends a signal to the processes that this one started.
            helper: Whether this is not the first process. A helper receives signals from the first process
                and also from the terminal, so it ignores the second one.
        """
        for number in self._before.keys() & {signal.SIGINT, signal.SIGTERM}:
            signal.signal(number, self._handle)
        self._signal_helpers = signal_helpers
        self._parent = os.getppid() if helper else None
        if self._requested and signal_helpers is not None:
            signal_helpers(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            if self._parent is None:
                self._restore()
                os.kill(os.getpid(), number)
            return
        self._requested = True
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, _GRACE, _AGAIN)
        if self._signal_helpers is not None:
            self._signal_helpers(signal.SIGTERM)
        if self._parent is None:
            Console(stderr=True).print(
                f"{signal.Signals(number).name}: stopping; run the same command to continue",
                highlight=False,
            )

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._may_interrupt:
            raise Stopped

    def _restore(self) -> None:
        if self._before and hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}


def until_stopped(parts: Generator[T, None, None], stop: StopRequest) -> Generator[T, None, None]:
    """Pull the parts of a generator until a stop request, which may interrupt the wait for a part.

    The generator is closed in the end. What it was computing then is lost.

    Args:
        parts: Generator, such as that of an engine's answers.
        stop: Stop request.
    """
    try:
        while not stop.requested:
            with stop.interruptible():
                part = next(parts, None)
            if part is None:
                break
            yield part
    except Stopped:  # a hung server or a slow model
        pass
    finally:
        parts.close()
