import time

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Answer, Failure
from llm4sbr.views.engines import openai_engine as module
from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy
from llm4sbr.views.store.spec import AnswerSpec

pytest.importorskip("openai")
from openai_server import (
    PROMPTS,
    assert_all_answered,
    collect,
    collect_into,
    completion,
    engine_for,
)

pytestmark = pytest.mark.usefixtures("direct")

KEY = "sk-not-to-be-shown"


def test_every_prompt_is_answered_once_and_the_bound_on_concurrency_holds(serve):
    """Seen to fail with twice the workers, and with places mixed up."""
    server = serve(lambda prompt, number: time.sleep(0.05 + 0.01 * (len(prompt) % 3)))
    prompts = [f"prompt {number}" for number in range(120)]
    assert_all_answered(collect(engine_for(server, concurrency=8).generate(prompts)), prompts)
    assert set(server.asked.values()) == {1}
    assert server.most_under_way == 8
    assert collect(engine_for(server).generate([])) == {}


def test_the_request(serve):
    server = serve()
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "seed": None}
    engine = engine_for(server, max_new_tokens=9, extra_body=extra, api_key=KEY)
    assert collect(engine.generate(["  a <|im_end|>"]))[0].text == "A <|IM_END|>"
    expected = {"model": "m", "messages": [{"role": "user", "content": "  a <|im_end|>"}], "max_tokens": 9}
    expected |= {"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}
    assert server.bodies == [expected]
    assert server.keys == {f"Bearer {KEY}"}


def test_the_answer(serve):
    """Seen to fail with `computed_tokens` left at the prompt's, with content alone read, with all retried.

    And with counts that exceed 64 bits.
    """
    details = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
    replies = {
        "plain": completion(" soap \n"),
        "cut": completion("soa", finish="length", usage=details),
        "silent": completion("", usage=None),
        "refusal": completion(None),
        "thinker": completion(None, finish="length"),
        "boaster": completion("soap", usage={"prompt_tokens": 10**30, "completion_tokens": 2**63}),
    }
    replies["refusal"]["choices"][0]["message"]["refusal"] = "I can't"
    server = serve(lambda prompt, number: replies[prompt])
    plain, cut, silent, refusal, thinker, boaster = dict(
        sorted(collect(engine_for(server).generate(list(replies))).items())
    ).values()
    assert plain == Answer("soap", 7, 7, 3, True)
    assert cut == Answer("soa", 7, 2, 2, False)
    assert silent == Answer("", 0, 0, 0, True)
    assert boaster == Answer("soap", 0, 0, 0, True)  # a store could not keep such numbers
    assert refusal.text == "I can't"
    assert "reasoned up to max_new_tokens" in thinker.reason
    assert server.asked["thinker"] == 1


BAD = {
    "500": (500, {}, "oh"),
    "503": (503, {"retry-after": "0.05"}, "loading"),
    "408": (408, {}, ""),
    "half": "half",
    "cut": "cut",
    "hang": "hang",
    "no JSON": "{'id':",
    "HTML": "<html>log in",
    "no object": "[1, 2]",
    "no choices": completion("x", choices=[]),
    "null choices": completion("x", choices=None),
    "no text": completion(None),
    "odd text": completion(["x"]),
    "error in 200": {"error": {"message": "overloaded"}},
    "deep": f'{{"choices": {"[" * 100_000}{"]" * 100_000}}}',
}


@pytest.mark.parametrize("kind", BAD)
def test_what_goes_wrong_twice_is_asked_a_third_time(serve, kind):
    """Seen to fail with `ValueError` or `RecursionError` not caught, and with one retry."""
    server = serve(lambda prompt, number: BAD[kind] if number <= 2 and prompt == PROMPTS[5] else None)
    timeout = 1.5 if kind == "hang" else 10.0
    assert_all_answered(collect(engine_for(server, timeout=timeout).generate(PROMPTS)))
    assert server.asked.pop(PROMPTS[5]) == 3
    assert set(server.asked.values()) == {1}


def test_failures_for_good_are_listed_by_place_and_the_rest_is_answered(serve):
    """Seen to fail with a cut connection taken for an absent server, and with pauses of one length."""
    server = serve(lambda prompt, number: "half" if prompt in PROMPTS[3:5] else None)
    outcomes = collect(engine_for(server, backoff=0.05).generate(PROMPTS))
    failed = {place for place, outcome in outcomes.items() if isinstance(outcome, Failure)}
    assert failed == {3, 4}
    assert "(tries: 4)" in outcomes[3].reason
    assert "RemoteProtocolError" in outcomes[3].reason
    assert server.asked[PROMPTS[3]] == 4
    first, second, third, fourth = server.times[PROMPTS[3]]
    assert second - first > 0.05
    assert third - second > 0.1
    assert fourth - third > 0.2
    assert all(outcomes[place].text == PROMPTS[place].upper() for place in range(40) if place not in failed)


def test_a_server_that_always_fails_is_not_asked_everything(serve):
    """Seen to fail with `check_failures` left out."""
    server = serve(lambda prompt, number: (500, {}, "CUDA error"))
    outcomes = {}
    with pytest.raises(InputError, match=r"prompts in a row got no answer.*CUDA error"):
        collect_into(outcomes, engine_for(server, retries=1).generate(PROMPTS))
    assert 8 <= len(outcomes) < 20
    assert all(isinstance(outcome, Failure) for outcome in outcomes.values())


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "extra_body"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "/models"), (429, "quota")],
)
def test_a_server_that_refuses_everything_ends_the_run_at_once(serve, status, hint):
    """Seen to fail with 400 always taken for the prompt's fault, and (key shown) without the crossing out."""
    said = f'{{"error": {{"message": "bad {KEY}", "code": "insufficient_quota"}}}}'
    server = serve(lambda prompt, number: (status, {}, said))
    with pytest.raises(InputError) as error:
        collect(engine_for(server, api_key=KEY).generate(PROMPTS))
    text = str(error.value)
    assert server.url in text
    assert "'m'" in text
    assert hint in text
    assert KEY not in text
    assert KEY not in repr(error.value.__dict__)
    assert error.value.__cause__ is None
    assert sum(server.asked.values()) <= 16


def test_secrets_of_the_address_and_the_request_are_neither_shown_nor_stored(serve):
    """Seen to fail with the key alone crossed out, and with `extra_body` stored as it is."""
    server = serve(lambda prompt, number: (400, {}, '{"error": {"message": "no hunter-22 for tok-123456"}}'))
    url = f"{server.url.replace('//', '//me:hunter-22@')}?sig=sgn-987654"
    extra = {"api_key": "tok-123456", "max_tokens": 5}
    engine = OpenAIEngine("m", url, extra_body=extra, retry=RetryPolicy(0, 5.0, 0.02, 1.0))
    with pytest.raises(InputError) as error:
        collect(engine.generate(PROMPTS))
    spec = AnswerSpec("long_term", "{items}", engine.identity, 20, 100, 1).to_json()
    for shown in (str(error.value), repr(error.value.__dict__), repr(engine), spec):
        assert not [secret for secret in ("hunter-22", "tok-123456", "sgn-987654") if secret in shown]
    other = OpenAIEngine("m", url, extra_body={**extra, "api_key": "tok-another"})
    assert AnswerSpec("long_term", "{items}", other.identity, 20, 100, 1).to_json() == spec


@pytest.mark.parametrize("place", [0, 20])
def test_a_prompt_that_is_too_long_fails_alone(serve, place):
    """Seen to fail with the server's word for it not tried on another prompt."""
    said = '{"error": {"message": "maximum context length is 4096 tokens", "code": 400}}'
    server = serve(lambda prompt, number: (400, {}, said) if prompt == PROMPTS[place] else None)
    outcomes = collect(engine_for(server, concurrency=1).generate(PROMPTS))
    assert "maximum context length" in outcomes.pop(place).reason
    assert len(outcomes) == 39
    assert all(isinstance(outcome, Answer) for outcome in outcomes.values())
    assert server.asked[PROMPTS[place]] == 1


def test_what_decides_an_answer_is_in_the_identity_and_nothing_else(monkeypatch):
    """Seen to fail with the address in the fingerprint, and with `extra_body` out of it."""

    def fingerprint(model="m", base_url="http://a/v1", **options):
        identity = OpenAIEngine(model, base_url, **options).identity
        spec = AnswerSpec("long_term", "{items}", identity, 20, 100, 1)
        assert KEY not in spec.to_json()
        assert AnswerSpec.from_json(spec.to_json()).fingerprint == spec.fingerprint
        return spec.fingerprint

    same = fingerprint()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in repr(OpenAIEngine("m", "http://u:p@a/v1"))
    assert "u:p" not in repr(OpenAIEngine("m", "http://u:p@a/v1"))
    speed = {"concurrency": 3, "retry": RetryPolicy(1, 9.0, 9.0, 9.0)}
    assert fingerprint(base_url=["http://b/v1", "http://c/v1"], api_key="other-key", **speed) == same
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    others = [
        {"model": "n"},
        {"revision": "2"},
        {"max_new_tokens": 25},
        {"seed": 1},
        {"extra_body": thinking},
    ]
    assert len({same, *(fingerprint(**other) for other in others)}) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "http address"),
        ({"base_url": " , "}, "http address"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1001}, "concurrency"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"api_key": "sk-secret\x00"}, "API key"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(InputError, match=message) as error:
        OpenAIEngine(**{"model": "m", "base_url": "http://a/v1"} | options)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"timeout": 0.0}, {"backoff": -1.0}, {"max_outage": float("nan")}]
)
def test_a_retry_policy_out_of_range_is_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        RetryPolicy(**options)


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"llm4sbr\[openai\]"):
        OpenAIEngine("m", "http://a/v1")
