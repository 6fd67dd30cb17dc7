"""Uncertain sessions go to the language model, its views come back, and no answer waits for either."""

import os
import time
from dataclasses import replace

import pytest
import torch
from bundles import CATALOGUE, KNOWN, SESSIONS, SPEC, bundle, raw, trained
from servers import serving_here, until
from views_stubs import StubEncoder, StubEngine

from llm4sbr.contracts.errors import InputError
from llm4sbr.runs.answering import Answering, ServedViews
from llm4sbr.serving import Recommender
from llm4sbr.serving.ask_queue import AskQueue, Published
from llm4sbr.serving.server import asking as module
from llm4sbr.serving.server.asking import Asking, Threshold
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.live_bundle import LiveBundle
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.options import Questions
from llm4sbr.views.inference.plan import view_spec
from llm4sbr.views.inference.progress import StopRequest
from llm4sbr.views.prompts import DEFAULT_PROMPTS
from llm4sbr.views.store import ViewStore

VIEWS = view_spec(CATALOGUE, StubEncoder(), StubEngine(), DEFAULT_PROMPTS, 3)
SERVED = replace(SPEC, fingerprint=VIEWS.fingerprint)
NEW = SESSIONS[1::2]  # those without views


@pytest.fixture(scope="module")
def llm_shop(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("llm_shop") / "bundle", trained(), spec=SERVED)


def answered(folder, served):
    """Answer what waits, as `llm4sbr views answer --once true` does."""
    with ViewStore(folder / "views") as store:
        worker = Answering(
            AskQueue(folder), store, served, encoder=StubEncoder(), engine=StubEngine(), r=3
        )  # fmt: skip
        return worker.until(StopRequest(), once=True), store.lookup_localised(VIEWS, list(map(key, NEW)))


def key(session):
    return CATALOGUE.session_key(session)


def recommended(server, sessions, path="/v1/recommend"):
    status, answer = server.post({"sessions": raw(sessions), "k": 5}, path)
    assert status == 200
    return answer["recommendations"]


class Here:
    """A live bundle with its queue, without HTTP."""

    def __init__(self, bundle, folder, **options):
        self.metrics, log = Metrics(), JsonLog("error", open(os.devnull, "w"))  # noqa: SIM115
        self.live = LiveBundle(bundle, "cpu", self.metrics, log)
        questions = Questions(str(folder), **{"ask_share": 1.0, "ask_s": 0.02} | options)
        self.asking = Asking(self.live, questions, self.metrics, log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.asking.close()

    def recommend(self, sessions):
        loaded = self.live.now
        return loaded.recommender.recommend(
            raw(sessions), 5, observe=lambda *seen: self.live.observe(loaded, *seen)
        )

    def count(self, result):
        return self.metrics.asked(result)._value.get()


def test_an_uncertain_session_is_known_once_it_is_answered(llm_shop, tmp_path):
    """Its scores are those of a bundle that was exported with the view."""
    folder = tmp_path / "asked"
    with serving_here(llm_shop, compare=llm_shop, ask=str(folder), ask_share=1.0, ask_s=0.05) as server:
        before = recommended(server, SESSIONS)
        recommended(server, [[7, 8, 9]], "/v1/compared/recommend")  # is not asked about
        assert [one["view"] for one in before] == ["known", "absent"] * 2 + ["known"]
        until(lambda: server.metric('llm4sbr_asked_total{result="queued"}') == 2)
        assert server.metric("llm4sbr_asked_waiting") == 2
        count, rows = answered(folder, ServedViews.of(llm_shop))
        assert count == 2
        until(lambda: server.metric("llm4sbr_answered_views") == 2)
        after = recommended(server, SESSIONS)
        explained = server.post({"session": raw(NEW)[0], "item": "B001"}, "/v1/explain")[1]
    assert [one["view"] for one in after] == ["known"] * 5
    assert after[::2] == before[::2]
    assert all(view["intents"] for view in explained["explanation"]["views"])
    further = [key(session) for session in NEW], torch.from_numpy(rows.ids), torch.from_numpy(rows.weights)
    whole = Recommender.load(bundle(tmp_path / "whole", trained(), spec=SERVED, further=further))
    for one, expected in zip(after, whole.recommend(raw(SESSIONS), 5), strict=True):
        assert one["item_ids"] == list(expected.item_ids)
        assert one["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert [one["scores"] for one in after[1::2]] != [one["scores"] for one in before[1::2]]


def test_the_queue_survives_a_restart_and_a_dead_language_model(llm_shop, tmp_path):
    """Nothing but the share of known views differs; the limit holds; the end queues what is held."""
    with Here(llm_shop, tmp_path, ask_s=60, ask_limit=1) as first:
        found = first.recommend(SESSIONS)
    assert first.count("queued") == 2
    assert first.count("full") == 1
    with Here(llm_shop, tmp_path) as second:
        assert second.recommend(SESSIONS) == found == Recommender.load(llm_shop).recommend(raw(SESSIONS), 5)
        until(lambda: second.count("waiting") == 1)
        until(lambda: second.count("queued") == 1)
    assert sorted(one.key for one in AskQueue(tmp_path).most_uncertain(9)) == sorted(map(key, NEW))
    assert AskQueue(tmp_path).most_uncertain(1)[0].items in raw(NEW)


def test_a_reload_keeps_the_answered_views(llm_shop, tmp_path):
    """Also those of the time before the restart."""
    with Here(llm_shop, tmp_path) as first:
        first.recommend(NEW)
    answered(tmp_path, ServedViews.of(llm_shop))
    with Here(llm_shop, tmp_path) as second:
        until(lambda: second.live.now.further)
        before = second.live.now
        assert second.live.reload()
        until(lambda: second.live.now is not before and second.live.now.further)
        assert {one.view for one in second.recommend(NEW)} == {"known"}
        assert not second.live.exchange(before, before)  # a variant of the bundle of before comes too late


def test_views_that_do_not_fit_change_nothing(llm_shop, tmp_path):
    """Of another size, and of items that the catalogue lacks."""
    with Here(llm_shop, tmp_path) as here:
        queue = AskQueue(tmp_path)
        queue.publish(VIEWS.fingerprint, [Published(key(NEW[0]), b"", b"")])
        until(lambda: here.live.now.further)
        assert here.recommend(NEW)[0].view == "absent"
        wrong = torch.full((2, 3), 99, dtype=torch.int32).numpy().tobytes()
        queue.publish(VIEWS.fingerprint, [Published(key(NEW[1]), wrong, bytes(12))])
        until(lambda: here.asking._failing)
        assert {one.view for one in here.recommend(NEW)} == {"absent"}


def test_a_full_disk_costs_the_queue_alone(llm_shop, tmp_path, monkeypatch):
    """It goes on when there is room again."""
    with Here(llm_shop, tmp_path) as here:
        with monkeypatch.context() as full:
            full.setattr(AskQueue, "add", lambda *_: (_ for _ in ()).throw(InputError("the disk is full")))
            assert len(here.recommend(NEW)) == 2
            until(lambda: here.count("failed") == 2)
        here.recommend(NEW)
        until(lambda: here.count("queued") == 2)


def test_entropies_take_a_share_of_one_core(llm_shop, tmp_path, monkeypatch):
    """At first what is saved up, and then a twentieth of the time."""
    slow = []

    def entropy(scores):
        slow.append(time.sleep(0.03))
        return scores.new_ones(1)

    monkeypatch.setattr(module, "entropy", entropy)
    with Here(llm_shop, tmp_path) as here:
        here.asking._credit = 0.05
        assert len(here.recommend(NEW * 10)) == 20
        assert len(slow) == 2
        assert here.count("skipped") == 18
        here.asking._at -= 0.5  # half a second later
        here.recommend(NEW * 10)
        assert len(slow) == 3


def test_a_share_of_the_sessions_is_asked_about():
    """The threshold follows the entropies."""
    threshold, draw = Threshold(0.1), torch.Generator().manual_seed(1)
    for level in (0.0, 5.0):
        drawn = (level + torch.randn(4000, generator=draw)).tolist()
        hits = [nats for nats in drawn if threshold.exceeded(nats)][-150:]
        assert sum(map(threshold.exceeded, drawn[:1000])) == pytest.approx(100, abs=30)
        assert min(hits) > level + 0.9
    assert not any(map(Threshold(0.01).exceeded, [1.0] * 99))  # too few for a hundredth


def test_a_bundle_without_such_views_is_refused(tmp_path):
    made = bundle(tmp_path / "bare", trained(wrapped=False))
    with pytest.raises(InputError, match="nothing to ask"):
        Here(made, tmp_path / "asked")
    titles = replace(SPEC, source="titles", sessions=0)
    made = bundle(tmp_path / "titles", trained(), spec=titles)
    with pytest.raises(InputError, match="nothing to ask"):
        Here(made, tmp_path / "asked")


def test_known_sessions_are_not_asked_about(llm_shop, tmp_path):
    with Here(llm_shop, tmp_path) as here:
        here.recommend(KNOWN)
    assert len(AskQueue(tmp_path)) == 0
