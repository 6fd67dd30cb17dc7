"""Progress without a terminal, and signals in another thread."""

import os
import signal
import threading

import pytest

from llm4sbr.views.inference import progress
from llm4sbr.views.inference.progress import Meter, StopRequest


def test_without_a_terminal_there_is_a_line_every_half_minute(monkeypatch, capsys):
    """Seen to fail with a line at every step."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for shown in (True, False):
        with Meter("querying", 100, shown=shown) as meter:
            for step in range(1, 11):
                now[0] += 10.0
                meter.advance(2)
                assert meter.done == 2 * step
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["querying: 8/100, 0.2/s, 8 min left", "querying: 16/100, 0.2/s, 7 min left"]


def test_the_first_signal_is_a_request_and_the_second_acts_at_once(capfd):
    """Seen to fail with every signal taken for the same request."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt) as ended:
                os.kill(os.getpid(), signal.SIGINT)
        assert ended.type is KeyboardInterrupt  # and not `Stopped`, of work that may be interrupted
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.count("run the same command to continue") == 1


def test_a_stop_request_in_another_thread_leaves_the_signals_alone():
    """Seen to fail with an error of `signal.signal`."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before, seen = [signal.getsignal(number) for number in numbers], []

    def work():
        with StopRequest() as stop:
            seen.extend([stop.requested, *map(signal.getsignal, numbers)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, *before]
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in numbers] == before
