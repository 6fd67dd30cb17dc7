"""The language model beside a server: nothing is lost or asked twice, and a dead one only waits."""

from dataclasses import replace

import pytest
from bundles import CATALOGUE, SPEC, bundle, raw, trained
from views_stubs import FailingEngine, StubEncoder, StubEngine

from llm4sbr.contracts.errors import InputError
from llm4sbr.runs import answering as module
from llm4sbr.runs.answering import Answering, ServedViews
from llm4sbr.serving.ask_queue import Asked, AskQueue
from llm4sbr.views.inference.plan import view_spec
from llm4sbr.views.inference.progress import StopRequest
from llm4sbr.views.prompts import DEFAULT_PROMPTS
from llm4sbr.views.store import ViewStore

VIEWS = view_spec(CATALOGUE, StubEncoder(), StubEngine(), DEFAULT_PROMPTS, 3)
ASKED = [[1, 2], [3, 4], [5, 6, 7]]


def as_asked(sessions):
    ids = raw(sessions)
    return [
        Asked(CATALOGUE.session_key(session), ids[place], float(place))
        for place, session in enumerate(sessions)
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "bundle"
    bundle(folder, trained(), spec=replace(SPEC, fingerprint=VIEWS.fingerprint, described="the run's"))
    return ServedViews.of(folder)


@pytest.fixture
def queue(tmp_path):
    made = AskQueue(tmp_path / "asked")
    made.add(as_asked(ASKED), VIEWS.fingerprint, 99)
    return made


@pytest.fixture
def store(tmp_path):
    with ViewStore(tmp_path / "views") as made:
        yield made


def answering(queue, store, served, engine, **options):
    return Answering(queue, store, served, encoder=StubEncoder(), engine=engine, **{"r": 3} | options)


class Dead(StubEngine):
    """Answers nothing for a while, as an engine whose servers are down."""

    def __init__(self, attempts, after=0):
        super().__init__()
        self.attempts, self.after = attempts, after

    def generate(self, prompts):
        for number, replies in enumerate(super().generate(prompts)):
            if self.attempts and number >= self.after:
                self.attempts -= 1
                raise InputError("no server accepted a request")
            yield replies


def test_the_views_are_those_of_stage_1(queue, store, served):
    """They are in the store, in the queue's form, and cut to the titles that the bundle reads."""
    engine = StubEngine()
    assert answering(queue, store, served, engine).until(StopRequest(), once=True) == 3
    keys = [one.key for one in as_asked(ASKED)]
    rows = store.lookup_localised(VIEWS, keys)
    assert rows.mask.all()
    found = {one.key: one for one in queue.published(VIEWS.fingerprint)[1]}
    for key, ids, weights in zip(keys, rows.ids, rows.weights, strict=True):
        assert found[key][1:] == (ids.astype("<i4").tobytes(), weights.astype("<f2").tobytes())
    assert len(queue) == 0
    answering(queue, store, served._replace(r=2), engine)
    assert len(engine.asked) == len(set(engine.asked)) == 6


def test_the_most_uncertain_session_comes_first(queue, store, served):
    engine = StubEngine(batch_size=2)  # the two prompts of one session
    worker = answering(queue, store, served, engine)
    assert worker.round(StopRequest()) == (1, 1)
    assert [one.key for one in queue.published(VIEWS.fingerprint)[1]] == [as_asked(ASKED)[2].key]


def test_a_kill_between_answer_and_publication_asks_nothing_twice(queue, store, served, monkeypatch):
    """The next process publishes what the store has."""
    engine = StubEngine()
    with monkeypatch.context() as killed:
        killed.setattr(queue, "publish", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            answering(queue, store, served, engine).until(StopRequest(), once=True)
    asked = len(engine.asked)
    assert (asked, len(queue)) == (6, 3)
    assert answering(queue, store, served, engine).until(StopRequest(), once=True) == 3
    assert (len(engine.asked), len(queue)) == (asked, 0)


def test_a_dead_engine_is_tried_again_and_reported_once(queue, store, served, capsys, monkeypatch):
    pauses = []
    monkeypatch.setattr(module, "_sleep", lambda seconds, stop: pauses.append(seconds))
    worker, stop = answering(queue, store, served, Dead(4)), StopRequest()
    real = worker.round

    def round_of(stop):
        done = real(stop)
        stop._requested = not done[0]
        return done

    worker.round = round_of
    assert worker.until(stop) == 3
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    said = capsys.readouterr().err
    assert said.count("no server accepted a request") == 1
    assert said.count("answers again") == 1


def test_what_a_dying_engine_has_answered_is_kept(queue, store, served):
    """With `once` the error ends the command."""
    engine = Dead(1, after=1)
    queue.add(as_asked([[8], [9], [8, 9]]), VIEWS.fingerprint, 99)
    worker = answering(queue, store, served, engine)
    worker._size = 6  # twelve prompts, of which eight are answered
    with pytest.raises(InputError, match="no server"):
        worker.until(StopRequest(), once=True)
    assert len(queue) == 2
    assert answering(queue, store, served, engine).until(StopRequest(), once=True) == 2
    assert len(engine.asked) == len(set(engine.asked)) + 4  # those of the lost batch


def test_failures_and_foreign_sessions_leave_the_queue(queue, store, served):
    """A prompt that fails is tried three times, and a session of another catalogue never."""
    third = CATALOGUE.titles[6]  # the last click of the third session
    engine = FailingEngine(lambda prompt: third in prompt)
    queue.add([Asked(b"k" * 16, ["B001"], 9.0), Asked(b"l" * 16, ["gone"], 9.0)], VIEWS.fingerprint, 99)
    assert answering(queue, store, served, engine).until(StopRequest(), once=True) == 2
    assert len(queue) == 0
    assert len(engine.asked) == 4 + 3 * 2


def test_other_options_are_refused(queue, store, served, tmp_path):
    for options in ({"r": 2}, {"engine": StubEngine(name="another")}):
        with pytest.raises(InputError, match="the bundle's views are the run's"):
            answering(queue, store, served, **{"engine": StubEngine()} | options)
    with pytest.raises(InputError, match="no views of a language model"):
        ServedViews.of(bundle(tmp_path / "bare", trained(wrapped=False)))


def test_a_stop_request_ends_it_and_loses_nothing(queue, store, served):
    stop = StopRequest()

    def reply(prompt):
        stop._requested = True
        return "Soap 1"

    worker = answering(queue, store, served, StubEngine(reply, batch_size=2))
    assert worker.until(stop) == 1
    assert len(queue) == 2
