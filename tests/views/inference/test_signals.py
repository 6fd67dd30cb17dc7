"""One signal ends a run of stage 1 within seconds, whatever the engine is waiting for."""

import os
import signal
import threading
import time

import pytest

from llm4sbr.views import ViewStore, infer_views

pytest.importorskip("openai")
from openai_server import engine_for

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.mark.usefixtures("direct")
@SIGNALS
def test_a_server_that_never_answers(stubs, serve, tmp_path, number, capfd):
    """Seen to fail with the alarm left out: the run waits for the time-out of the request, seven times."""
    server = serve(lambda prompt, _: "hang")
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    with ViewStore(tmp_path) as store:
        timer.start()
        began = time.monotonic()
        summary = infer_views(
            stubs.FakeSource(),
            store,
            encoder=stubs.StubEncoder(),
            engine=engine_for(server, timeout=60.0, retries=6),
            progress=False,
        )
    assert time.monotonic() - began < 6
    assert summary.interrupted
    assert "run the same command to continue" in capfd.readouterr().err
    assert handlers == [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@SIGNALS
def test_a_model_that_takes_a_minute_for_a_batch(stubs, tmp_path, number):
    """What was answered before is kept, localised, and not asked again."""
    first = stubs.StubEngine()

    class Slow(stubs.StubEngine):
        def generate(self, prompts):
            replies = super().generate(prompts)
            yield next(replies)
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
            time.sleep(60)

    with ViewStore(tmp_path) as store:
        given = {"encoder": stubs.StubEncoder(), "progress": False}
        began = time.monotonic()
        assert infer_views(stubs.FakeSource(), store, engine=Slow(), **given).interrupted
        assert time.monotonic() - began < 5
        summary = infer_views(stubs.FakeSource(), store, engine=first, **given)
    assert not summary.interrupted
    assert summary.reused > 0
