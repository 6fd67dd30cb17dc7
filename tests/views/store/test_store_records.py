"""What the store keeps beside answers and views: failures, runs, choices, and prompts by their hash."""

import sqlite3
from dataclasses import replace

import pytest

from llm4sbr.views.engines import Answer, Choice
from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.store import StoreError, ViewStore
from llm4sbr.views.store.reading import RunRecord
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store.store import AnswerRow

ENGINE = EngineIdentity(ModelIdentity("m", "m"), {"strategy": "greedy"}, "")
LONG = AnswerSpec("long_term", "l {items}", ENGINE, 20, 100, 1)
SHORT = AnswerSpec("short_term", "s {items}", ENGINE, 20, 100, 1)
VIEW = ViewSpec("llm", ("long_term", "short_term"), (LONG, SHORT), ModelIdentity("e", "e"), "cat", 3)
KEYS = [bytes([n]) * 16 for n in range(8)]
A_VIEW = "(SELECT id FROM specs WHERE kind = 'view')"
RUN = RunRecord(1.5, 0, 2.25, 3, 4, 5, 6, "x86_64")


def said(text, **options):
    return Answer(text, 9, 4, 2, True)._replace(**options)


def test_failures_stand_until_an_answer_comes(tmp_path):
    """Seen to fail with the entry left where it is."""
    with ViewStore(tmp_path) as store:
        store.add_failures([(LONG, key, "HTTP 500") for key in KEYS] + [(SHORT, KEYS[0], "time-out")])
        store.add_failures([(LONG, KEYS[1], "refused: « no »")])  # the latest reason
        store.add_answers([(LONG, KEYS[2], said("soap"))])
        assert dict(store.failures(LONG)) == {
            **dict.fromkeys(KEYS[:1] + KEYS[3:], "HTTP 500"),
            KEYS[1]: "refused: « no »",
        }
        assert dict(store.failures(SHORT)) == {KEYS[0]: "time-out"}
        assert not dict(store.failures(replace(LONG, view="mood")))
        store.add_failures([(LONG, KEYS[2], "later")])  # a failure takes no answer away
        assert dict(store.answers(LONG)) == {KEYS[2]: said("soap")}


def test_runs_are_kept_in_order_and_by_process(tmp_path):
    records = [RUN, RUN._replace(rank=1), RUN._replace(started=0.5), RUN._replace(started=9.0, prompts=7)]
    with ViewStore(tmp_path) as store:
        for record in records:
            store.add_run(VIEW, record)
        store.add_run(VIEW, records[0]._replace(prompts=8))  # the same run again
        assert store.runs(VIEW) == [records[2], records[0]._replace(prompts=8), records[1], records[3]]
        assert store.runs(replace(VIEW, r=1)) == []


@pytest.mark.parametrize(
    "choices", [(), (Choice("« שמפו »", 0.25),), tuple(Choice(f"{n}", 0.1 / 3 + n) for n in range(20))]
)
def test_choices_come_back_as_they_were(tmp_path, choices):
    with ViewStore(tmp_path) as store:
        store.add_answers([(LONG, KEYS[0], said("x", choices=choices))])
        assert dict(store.answers(LONG, KEYS[0]))[KEYS[0]].choices == choices


def test_an_answer_is_found_by_its_prompt_and_engine(tmp_path):
    """Seen to fail with the specs left out: another model's answer would be taken."""
    other = replace(LONG, engine=replace(ENGINE, chat_template="other"))
    with ViewStore(tmp_path) as store:
        store.add_answers(
            [
                AnswerRow(other, KEYS[0], said("theirs"), b"p"),
                AnswerRow(SHORT, KEYS[1], said("ours"), b"p"),
                AnswerRow(LONG, KEYS[2], said("no prompt")),
            ]
        )
        assert store.answer_to(b"p", {LONG.fingerprint, SHORT.fingerprint}).text == "ours"
        assert store.answer_to(b"p", {other.fingerprint}).text == "theirs"
        assert store.answer_to(b"p", {LONG.fingerprint}) is None
        assert store.answer_to(b"q", {LONG.fingerprint, SHORT.fingerprint}) is None


@pytest.mark.parametrize(
    ("table", "change", "read"),
    [
        ("failures", "reason = 'forged'", lambda store: list(store.failures(LONG))),
        ("runs", "prompts = 99", lambda store: store.runs(VIEW)),
        ("answers", "choices = '[[\"forged\", 1.0]]'", lambda store: list(store.answers(LONG))),
        ("answers", "prompt = x'00'", lambda store: store.answer_to(b"\0", {LONG.fingerprint})),
        ("answers", "computed_tokens = 0", lambda store: list(store.answers(LONG))),
        ("answers", "session_key = x'01'", lambda store: list(store.answers(LONG))),
        ("answers", f"spec = {A_VIEW}", lambda store: list(store.answers(LONG))),
        ("runs", "spec = 99", lambda store: store.runs(VIEW)),
        ("failures", "spec = 99", lambda store: list(store.failures(LONG))),
    ],
)  # fmt: skip
def test_a_forged_record_is_found_out(tmp_path, table, change, read):
    with ViewStore(tmp_path) as store:
        store.add_answers([AnswerRow(LONG, KEYS[0], said("x"), b"p")])
        store.add_failures([(LONG, KEYS[1], "HTTP 500")])
        store.add_run(VIEW, RUN)
    with sqlite3.connect(tmp_path / "views.sqlite") as raw:
        raw.execute(f"UPDATE {table} SET {change}")
    with ViewStore(tmp_path) as store, pytest.raises(StoreError, match=r"checksum|known spec"):
        read(store)


def test_a_swapped_database_is_its_own_and_nothing_of_the_first(tmp_path):
    """Rows are found by content: another store's file answers for its own sessions and specs alone."""
    for name, spec in (("one", LONG), ("two", replace(LONG, max_items=7))):
        with ViewStore(tmp_path / name) as store:
            store.add_answers([(spec, KEYS[0], said(name))])
    (tmp_path / "two" / "views.sqlite").replace(tmp_path / "one" / "views.sqlite")
    with ViewStore(tmp_path / "one") as store:
        assert not list(store.answers(LONG))
        assert [answer.text for _, answer in store.answers(replace(LONG, max_items=7))] == ["two"]
