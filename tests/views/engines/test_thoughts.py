"""Thoughts of reasoning models: switched off, cut, or a failure; never a title."""

import json
from pathlib import Path

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Answer, Failure
from llm4sbr.views.engines.language_model import LanguageModel
from llm4sbr.views.engines.search import Hypothesis
from llm4sbr.views.engines.thoughts import without_thoughts
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.inference.options import LocalModel, Server

pytest.importorskip("openai")
from openai_server import collect, completion, engine_for

SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (" Rose Soap ", "Rose Soap"),
        ("<think>\nmaybe a soap\n</think>\n\nRose Soap", "Rose Soap"),
        ("<THINKING>a</THINKING>b<think>c</think>Rose Soap", "Rose Soap"),
        ("maybe a soap\n</think>\n\nRose Soap", "Rose Soap"),  # the chat template opened the block
        ("[THINK]hm[/THINK]Rose Soap", "Rose Soap"),
        ("◁think▷hm◁/think▷Rose Soap", "Rose Soap"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Soap", "Soap"),
        ("<think></think>", ""),
        ("<think>\nmaybe a", None),
        ("<think>a</think><think>b", None),
        ("<|channel|>analysis<|message|>We need", None),
        ("", ""),
        ("A thinking cap <b>", "A thinking cap <b>"),
    ],
)
def test_what_is_left_of_an_answer(text, rest):
    assert without_thoughts(text) == rest


def test_thoughts_that_the_prompt_opens_have_to_be_closed():
    assert without_thoughts("We need a soap", opened=True) is None
    assert without_thoughts("We need</think>Soap", opened=True) == "Soap"


@pytest.mark.usefixtures("direct")
def test_a_server_that_thinks(serve):
    """Seen to fail with the content taken as it is."""
    replies = {
        "closed": completion("<think>\nOkay\n</think>\n\nRose Soap"),
        "cut": completion("<think>\nOkay, the", finish="length"),
        "nothing": completion("<think>Okay</think>"),
        "apart": completion("", finish="length"),
        "apart, too": completion(None),
        "silent": completion(""),
        "parts": completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Soap"}]),
    }
    replies["apart"]["choices"][0]["message"]["reasoning"] = "Okay"
    replies["apart, too"]["choices"][0]["message"] = {"content": "", "reasoning_content": "Okay"}
    server = serve(lambda prompt, number: replies[prompt])
    found = collect(engine_for(server).generate(list(replies)))
    closed, cut, nothing, apart, other, silent, parts = (found[place] for place in range(len(replies)))
    assert (closed.text, silent.text, parts.text) == ("Rose Soap", "", "Soap")
    for failure in (cut, apart):
        assert isinstance(failure, Failure)
        assert "reasoned up to max_new_tokens: raise it, or switch reasoning off" in failure.reason
    for failure in (nothing, other):
        assert "reasoned and gave no answer" in failure.reason
    assert set(server.asked.values()) == {1}  # at temperature 0 another try would end the same way


@pytest.mark.usefixtures("direct")
def test_a_server_is_told_not_to_think(serve):
    server = serve()
    options = Server(server.url, template_kwargs={"enable_thinking": False}, extra_body={"top_k": 1})
    collect(options.engine("m", None).generate(["x"]))
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["top_k"] == 1
    collect(Server(server.url).engine("m", None).generate(["x"]))
    assert "chat_template_kwargs" not in server.bodies[1]


@pytest.fixture(scope="module")
def thinker(tiny_module, tmp_path_factory):
    """A model whose chat template has the switch of Qwen3's."""
    folder = tiny_module.make(tmp_path_factory.mktemp("thinker"))
    chat = tiny_module.CHAT.replace("assistant\n", f"assistant\n{SWITCH}")
    (Path(folder) / "chat_template.jinja").write_text(chat)
    return str(folder)


def local(model, **options):
    return LocalModel(dtype="float32", device="cpu", max_new_tokens=4, **options).engine(model, None)


def test_a_model_in_this_process_does_not_think_by_default(thinker, tiny_llm):
    """Seen to fail with the template rendered without the switch."""
    off, on = local(thinker), local(thinker, template_kwargs={"enable_thinking": True})
    closing = off.lm.tokenizer("<think>\n\n</think>\n\n", add_special_tokens=False).input_ids
    assert off.lm.frame[1][-len(closing) :] == closing
    assert off.lm.frame[1] == [*on.lm.frame[1], *closing]
    assert not off.lm.opens_thoughts
    assert off.identity.key() != on.identity.key()
    plain = local(tiny_llm).identity.key()
    assert (
        plain == TransformersEngine(tiny_llm, max_new_tokens=4, dtype="float32", device="cpu").identity.key()
    )
    assert "template" not in plain["decoding"]
    assert json.loads(off.identity.key()["decoding"]["template"]) == {"enable_thinking": False}


def test_what_a_model_in_this_process_thinks_is_no_answer(tiny_llm):
    """Seen to fail with the decoded text taken as it is."""
    engine = local(tiny_llm)

    def reply(text, finished=True):
        tokens = tuple(engine.lm.plain([text])[0])
        return engine._reply([Hypothesis(0.0, tokens, finished)], 1, 1)

    assert isinstance(reply("<think>hm</think> rose soap"), Answer)
    assert reply("<think>hm</think> rose soap").text == "rose soap"
    assert "up to max_new_tokens" in reply("<think>hm", finished=False).reason
    assert "gave no answer" in reply("<think>hm</think> ").reason
    assert reply(" ").text == ""  # no thoughts: an empty answer is one
    engine.lm.opens_thoughts = True
    assert "up to max_new_tokens" in reply("rose soap", finished=False).reason


def test_a_template_that_refuses_its_variables(tiny_module, tmp_path):
    folder = tiny_module.make(tmp_path)
    chat = "{{ raise_exception('no such mode') if mode is defined }}" + tiny_module.CHAT
    (folder / "chat_template.jinja").write_text(chat)
    with pytest.raises(InputError, match="no such mode"):
        LanguageModel(str(folder), template_kwargs={"mode": 1}).encode(["x"])
