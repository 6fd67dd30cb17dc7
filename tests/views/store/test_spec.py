from dataclasses import fields, replace

import pytest

from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec

MODEL = ModelIdentity("a model", "f1")
ENGINE = EngineIdentity(MODEL, {"strategy": "greedy", "max_new_tokens": 24, "dtype": "float32"}, "chat")
ANSWER = AnswerSpec("long_term", "t {items}", ENGINE, 20, 100, 1)
VIEW = ViewSpec("llm", ("long_term",), (ANSWER,), ModelIdentity("e", "f2"), "cat", 5)


def with_engine(**changes):
    return replace(ANSWER, engine=replace(ENGINE, **changes))


ANSWER_CHANGES = {
    "view": replace(ANSWER, view="short_term"),
    "template": replace(ANSWER, template="u {items}"),
    "model": with_engine(model=ModelIdentity("a model", "f9")),
    "revision": with_engine(model=ModelIdentity("a model", "f1", "main")),
    "adapter": with_engine(adapter=ModelIdentity("lora", "f1")),
    "adapter content": with_engine(adapter=ModelIdentity("lora", "f2")),
    "max_new_tokens": with_engine(decoding={**ENGINE.decoding, "max_new_tokens": 25}),
    "dtype": with_engine(decoding={**ENGINE.decoding, "dtype": "bfloat16"}),
    "strategy": with_engine(decoding={**ENGINE.decoding, "strategy": "beam"}),
    "chat_template": with_engine(chat_template="other"),
    "max_items": replace(ANSWER, max_items=19),
    "max_title_chars": replace(ANSWER, max_title_chars=99),
    "prompt_version": replace(ANSWER, prompt_version=3),
}
VIEW_CHANGES = {
    **{name: replace(VIEW, answers=(changed,)) for name, changed in ANSWER_CHANGES.items()},
    "source": replace(VIEW, source="titles"),
    "views": replace(VIEW, views=("other",)),
    "answers": replace(VIEW, answers=()),
    "encoder": replace(VIEW, encoder=ModelIdentity("e", "f3")),
    "catalogue": replace(VIEW, catalogue="other"),
    "r": replace(VIEW, r=4),
    "version": replace(VIEW, version=3),
}


@pytest.mark.parametrize("name", ANSWER_CHANGES)
def test_any_one_component_of_an_answer_misses(name):
    assert ANSWER_CHANGES[name].fingerprint != ANSWER.fingerprint


@pytest.mark.parametrize("name", VIEW_CHANGES)
def test_any_one_component_of_a_view_misses(name):
    assert VIEW_CHANGES[name].fingerprint != VIEW.fingerprint


def test_every_field_is_covered():
    covered = {*ANSWER_CHANGES, *VIEW_CHANGES, "engine", "decoding", "name", "fingerprint"}
    for record in (AnswerSpec, ViewSpec, EngineIdentity, ModelIdentity):
        assert {field.name for field in fields(record)} <= covered


def test_nothing_else_misses():
    renamed = with_engine(model=ModelIdentity("/another/path", "f1"))
    reordered = with_engine(decoding=dict(reversed(ENGINE.decoding.items())))
    assert renamed.fingerprint == reordered.fingerprint == ANSWER.fingerprint
    encoder = replace(VIEW, encoder=ModelIdentity("renamed", "f2"))
    assert encoder.fingerprint == VIEW.fingerprint
    assert encoder.title_table == VIEW.title_table == replace(VIEW, r=0).title_table
    assert replace(VIEW, catalogue="x").title_table != VIEW.title_table


def test_json_round_trip():
    adapted = replace(VIEW, answers=(ANSWER, with_engine(adapter=ModelIdentity("lora", "f3", "v1"))))
    for spec in (VIEW, adapted):
        again = ViewSpec.from_json(spec.to_json())
        assert again == spec
        assert again.fingerprint == spec.fingerprint
    assert AnswerSpec.from_json(ANSWER.to_json()).fingerprint == ANSWER.fingerprint
