"""Explanations over HTTP are those of the Recommender, within limits, and let recommendations go first."""

import asyncio
import json
import threading
import time
from dataclasses import asdict

import pytest
from bundles import KNOWN, SESSIONS, raw

from llm4sbr.serving import Recommender
from llm4sbr.serving import explain as explaining
from llm4sbr.serving.server.batcher import Batcher, Expired, Full
from llm4sbr.serving.server.live_bundle import Loaded
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.options import Batching
from llm4sbr.serving.server.side_queue import Explainer

ROUTE = "/v1/explain"


@pytest.fixture(scope="module")
def recommender(shop):
    return Recommender.load(shop)


@pytest.mark.parametrize(
    "session", [*raw([KNOWN[0], SESSIONS[1]]), ["B004", "nowhere", "B002"]], ids=["known", "one", "unknown"]
)
def test_answers_are_those_of_the_recommender(running, recommender, session):
    status, found = running.post({"session": session, "item": "B004"}, ROUTE)
    expected = recommender.explain(session, "B004")
    assert (status, found["bundle"]) == (200, recommender.manifest.sha256[:16])
    same(found["explanation"], json.loads(json.dumps(asdict(expected))))


def same(found, expected):
    """Equal, with numbers to the rounding of another thread."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same(found[name], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ({}, 422, "session"),
        ({"session": ["B001"]}, 422, "item"),
        ({"item": "B001"}, 422, "session"),
        ({"session": [], "item": "B001"}, 422, "session"),
        ({"session": "B001", "item": "B001"}, 422, "session"),
        ({"session": [["B001"]], "item": "B001"}, 422, "session[0]"),
        ({"session": ["B001", ""], "item": "B001"}, 422, "session[1]"),
        ({"session": ["B001"] * 101, "item": "B001"}, 422, "session"),
        ({"session": ["nowhere"], "item": "B001"}, 422, "session"),
        ({"session": ["B001"], "item": "nowhere"}, 422, "item"),
        ({"session": ["B001"], "item": ""}, 422, "item"),
        ({"session": ["B001"], "item": None}, 422, "item"),
        ({"session": ["B001"], "item": ["B001"]}, 422, "item"),
        ({"session": ["B001"], "item": "x" * 513}, 422, "item"),
        ({"session": ["B001"], "item": "B001", "k": 3}, 422, "k"),
        ([], 422, "body"),
        (b"{", 400, "body"),
        (b" " * 4001, 413, "body"),
    ],
    ids=lambda one: str(one)[:50],
)
def test_a_wrong_field_is_named(running, content, status, field):
    code, found = running.post(content, ROUTE)
    assert (code, found["field"]) == (status, field), found
    assert set(found) == {"error", "field"}


def test_other_methods_and_types_are_refused_and_counted(running):
    assert running.request("GET", ROUTE)[0] == 405
    assert running.request("POST", ROUTE, b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert running.metric(f'llm4sbr_requests_total{{route="{ROUTE}",status="405"}}') == 1
    assert running.metric(f'llm4sbr_request_seconds_count{{route="{ROUTE}"}}') >= 2
    assert running.metric(f'llm4sbr_requests_total{{route="{ROUTE}",status="500"}}') == 0


def test_many_clicks_are_left_out_in_steps(recommender, monkeypatch):
    """Seen to fail with the places of the first step in all steps."""
    session = raw([[9, 8, 7, 6, 1]])[0]
    steps = []
    whole = recommender.explain(session, "B004", lambda: steps.append(0))
    monkeypatch.setattr(explaining, "_AT_ONCE", 2)
    parts = recommender.explain(session, "B004", lambda: steps.append(1))
    same(asdict(parts), asdict(whole))
    assert steps.count(1) == steps.count(0) + 2  # five clicks in three steps


class Busy(Batcher):
    """Batches that are due until `quiet` is set."""

    def __init__(self):
        super().__init__(Batching(), Metrics())
        self.quiet, self.waits = threading.Event(), 0

    def wait_until_idle(self, seconds):
        self.waits += 1
        self.quiet.wait(5)


def test_an_explanation_waits_for_batches_and_ends_with_its_client(recommender):
    """Seen to fail with the explanation going on after its deadline, and with no bound of the queue."""
    loaded, batcher = Loaded(recommender), Busy()
    explainer, session = Explainer(batcher), raw([KNOWN[0]])[0]

    async def explained(seconds):
        stop = asyncio.get_running_loop().time() + seconds
        return await explainer.explain(loaded, session, "B004", stop)

    async def run():
        with pytest.raises(Expired):
            await explained(0.05)
        assert batcher.waits == 1
        waiting = [asyncio.ensure_future(explained(20)) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await explained(20)
        batcher.quiet.set()
        return await asyncio.gather(*waiting)

    found = asyncio.run(run())
    assert {one.item_id for one in found} == {"B004"}
    steps = 1 + 1 + 2 + len(found[0].heads)  # whole, clicks, views, heads
    assert batcher.waits == 1 + 16 * steps


def test_waiting_for_batches_has_an_end():
    """Seen to fail without the notice at the end of a batch."""
    batcher = Batcher(Batching(), Metrics())
    batcher._busy = 1
    began = time.perf_counter()
    batcher.wait_until_idle(0.05)
    assert time.perf_counter() - began >= 0.05
    thread = threading.Thread(target=batcher.wait_until_idle, args=(30,))
    thread.start()
    with batcher._change:
        batcher._end()
    thread.join(10)
    assert not thread.is_alive()
