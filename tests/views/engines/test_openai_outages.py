import asyncio
import logging
import signal
import threading
import time

import pytest

from llm4sbr.contracts.errors import InputError

pytest.importorskip("openai")
from openai_server import (
    PROMPTS,
    assert_all_answered,
    collect,
    collect_into,
    engine_for,
    until,
)

pytestmark = pytest.mark.usefixtures("direct")


def test_a_busy_server_is_left_alone_as_long_as_it_asks(serve):
    """Seen to fail with the header ignored, and with 429 counted among the tries."""
    busy = (429, {"retry-after": "0.4"}, "slow down")
    server = serve(lambda prompt, number: busy if prompt == PROMPTS[0] and number <= 3 else None)
    assert_all_answered(collect(engine_for(server, retries=0, concurrency=1).generate(PROMPTS)))
    first, *later = server.times[PROMPTS[0]]
    assert len(later) == 3
    assert all(b - a >= 0.4 for a, b in zip([first, *later], later, strict=False))
    assert later[-1] - first < 3


def test_a_server_that_comes_back_is_tried_with_one_prompt(serve):
    """Seen to fail with every waiting prompt sent as a rest ends, and with no rest."""
    begin, loading = time.monotonic(), (503, {}, "loading")
    server = serve(lambda prompt, number: loading if time.monotonic() - begin < 1 else None)
    assert_all_answered(collect(engine_for(server).generate(PROMPTS)))
    assert sum(server.asked.values()) - len(PROMPTS) < 8 + 10


def test_a_server_that_dies_midway_and_comes_back(serve, caplog):
    """Seen to fail with refused connections counted among the tries."""
    server = serve()
    server.delay = 0.02
    outcomes = {}
    replies = engine_for(server, retries=2).generate(PROMPTS)
    outcomes |= collect([next(replies)])
    with caplog.at_level(logging.WARNING):
        server.kill()
        threading.Timer(1.0, server.start).start()
        outcomes |= collect(replies)
    assert_all_answered(outcomes)
    told = [record.message for record in caplog.records if record.name.startswith("llm4sbr")]
    assert len(told) == 1
    assert server.url in told[0]


def test_a_server_that_dies_for_good_ends_the_run_after_what_was_answered(serve):
    """Seen to fail with `_check_outage` empty: it hangs."""
    server = serve(lambda prompt, number: "hang" if prompt in PROMPTS[20:] else None)
    outcomes = {}
    replies = engine_for(server, max_outage=0.5).generate(PROMPTS)
    threading.Timer(0.5, server.kill).start()
    with pytest.raises(InputError, match=rf"no server accepted a request for 0.5 s.*{server.url}.*again"):
        collect_into(outcomes, replies)
    assert sorted(outcomes) == list(range(20))


def test_an_address_where_nobody_listens(serve, monkeypatch):
    server = serve()
    server.kill()
    monkeypatch.setattr("llm4sbr.views.engines.fleet._FIRST_CONTACT", 0.2)
    with pytest.raises(InputError, match=r"ConnectError.*Start the server, or correct base_url"):
        collect(engine_for(server).generate(PROMPTS))


def test_leaving_early_cancels_what_is_under_way(serve):
    """Seen to fail with the task not cancelled (it hangs); the fixture looks for threads and connections."""
    server = serve(lambda prompt, number: None if prompt == PROMPTS[0] else "hang")
    replies = engine_for(server, timeout=60.0).generate(PROMPTS)
    assert next(replies)[0].place == 0
    until(lambda: server.under_way == 8)
    replies.close()
    until(lambda: server.dropped == 8)
    assert sum(server.asked.values()) == 9


def test_ctrl_c_while_waiting(serve):
    """Seen to fail with the task not cancelled: it hangs."""
    server = serve(lambda prompt, number: "hang")
    main = threading.main_thread().ident
    threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
    begin = time.monotonic()
    # A shell starts what it runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            collect(engine_for(server, timeout=60.0).generate(PROMPTS))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 5


def test_a_slow_reader_is_not_run_ahead_of_without_bound(serve):
    """Seen to fail with `room` never acquired."""
    server = serve()
    replies = engine_for(server, concurrency=2).generate(PROMPTS)
    outcomes = collect([next(replies)])
    time.sleep(0.5)
    assert len(outcomes) < sum(server.asked.values()) <= len(outcomes) + 8
    assert_all_answered(outcomes | collect(replies))


def test_answers_arrive_while_others_are_under_way(serve):
    """Seen to fail with all replies put at the end: it hangs."""
    server = serve(lambda prompt, number: "hang" if prompt == PROMPTS[1] else None)
    replies = engine_for(server, timeout=60.0).generate(PROMPTS)
    outcomes = {}
    while len(outcomes) < 39:
        outcomes |= collect([next(replies)])
    server.script = lambda prompt, number: None
    server.released.set()  # the hanging request is cut, and asked again
    assert_all_answered(outcomes | collect(replies))


def test_inside_a_running_event_loop(serve):
    async def notebook():
        return collect(engine_for(serve()).generate(PROMPTS))

    assert_all_answered(asyncio.run(notebook()))


def test_a_fleet_shares_the_work_and_does_without_a_dead_member(serve):
    """Seen to fail with the first member always taken."""
    quick, slow, dead = serve(), serve(), serve()
    quick.delay, slow.delay = 0.01, 0.1
    dead.kill()
    prompts = [f"prompt {number}" for number in range(100)]
    engine = engine_for(quick, dead, slow, backoff=5.0, retries=0)
    begin = time.monotonic()
    assert_all_answered(collect(engine.generate(prompts)), prompts)
    assert time.monotonic() - begin < 4
    assert sum(quick.asked.values()) + sum(slow.asked.values()) == 100
    assert sum(quick.asked.values()) > 2 * sum(slow.asked.values()) > 0


def test_what_one_member_can_not_answer_goes_to_another(serve):
    """Seen to fail with `avoid` ignored."""
    broken, sound = serve(lambda prompt, number: "half"), serve()
    sound.delay = 0.02
    assert_all_answered(collect(engine_for(broken, sound, retries=1).generate(PROMPTS)))
