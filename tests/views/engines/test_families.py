"""The in-process engine on tiny random models of many families, against one prompt at a time."""

import families
import pytest
import torch

from llm4sbr.views.engines.transformers_engine import TransformersEngine

SESSION = "1. rose soap\n2. silk powder\n"
PROMPTS = [f"{SESSION}Long-term interest:", f"{SESSION}Short-term interest:", f"{SESSION}3. oil\nLong", "Hi"]
TITLES = ["rose soap", "rose soap bar", "rose", "silk powder", "silk polish", "x"]
NEW = 6


@pytest.fixture
def make(tiny_llm):
    """Engines on one model, given or of a family."""

    def engine(model, config=None, **options):
        made = TransformersEngine(
            tiny_llm, **{"max_new_tokens": NEW, "dtype": "float32", "device": "cpu", **options}
        )
        if isinstance(model, str):
            model = families.build(model, made.lm.tokenizer, **(config or {}))
        made.lm.base_model = model
        return made

    return engine


def answers(engine, prompts=PROMPTS):
    replies = sorted(reply for group in engine.generate(prompts) for reply in group)
    assert [reply.place for reply in replies] == list(range(len(prompts)))
    return [reply.outcome for reply in replies]


def one_by_one(engine, prompts=PROMPTS):
    """Texts of transformers' own `generate`, a prompt at a time."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([engine.lm.encode([prompt])[0]])
        mask = torch.ones_like(ids)
        output = engine.lm.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW)
        said = output[0, ids.size(1) :].tolist()
        end = next((at for at, token in enumerate(said) if token in engine.lm.stop_ids), NEW)
        texts.append(engine.lm.tokenizer.decode(said[:end], skip_special_tokens=True).strip())
    return texts


def best_titles(engine, prompt, count):
    """The likeliest titles among the allowed tokens, each scored by a forward pass of its own."""
    (stop,) = engine.lm.stop_ids
    paths = [(*engine.lm.plain([title])[0], stop) for title in TITLES]
    start, scores = engine.lm.encode([prompt])[0], {}
    for title, path in zip(TITLES, paths, strict=True):
        with torch.no_grad():
            logits = engine.lm.model(torch.tensor([[*start, *path]])).logits[0, len(start) - 1 :].double()
        scores[title] = 0.0
        for at, token in enumerate(path):
            allowed = sorted({other[at] for other in paths if other[:at] == path[:at]})
            scores[title] += float(logits[at, allowed].log_softmax(-1)[allowed.index(token)])
    return sorted(TITLES, key=lambda title: -scores[title])[:count]


@pytest.mark.parametrize("family", [*families.TREES, *families.ROWS])
def test_answers_are_those_of_one_prompt_at_a_time(make, family):
    """Seen to fail with all families on trees, and with no row left out."""
    free = make(family)
    assert free.lm.reads_trees == (family in families.TREES)
    assert [answer.text for answer in answers(free)] == one_by_one(free)
    held = make(free.lm.base_model, choices=TITLES, num_answers=len(TITLES))
    for prompt, answer in zip(PROMPTS[1:3], answers(held, PROMPTS[1:3]), strict=True):
        assert [choice.text for choice in answer.choices] == best_titles(held, prompt, len(TITLES))
        assert sum(choice.probability for choice in answer.choices) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"num_answers": 3}, {"choices": TITLES, "num_answers": 3}])
def test_padded_batches_answer_as_trees_do(make, options, caplog):
    """One search for both; what differs is the computation that is counted, and a line that says so, once."""
    shared = make("llama", **options)
    padded = make(shared.lm.base_model, **options, batch_tokens=60)
    padded.lm.reads_trees = False
    for _ in range(2):
        for one, other in zip(answers(shared), answers(padded), strict=True):
            assert one._replace(choices=(), computed_tokens=0) == other._replace(
                choices=(), computed_tokens=0
            )
            assert [choice.text for choice in one.choices] == [choice.text for choice in other.choices]
            assert [c.probability for c in one.choices] == pytest.approx(
                [c.probability for c in other.choices], 1e-3
            )
            assert other.computed_tokens == other.prompt_tokens
    (line,) = caplog.messages
    assert "shares no computation" in line
    found = answers(shared)
    times = sum(one.prompt_tokens for one in found) / sum(one.computed_tokens for one in found)
    assert f"{times:.1f} times the prompt tokens" in line
    assert shared.identity.key() == padded.identity.key()


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "gpt_oss", "llama4_text"])
def test_sliding_windows(make, family, caplog):
    """A window that holds each prompt but not their tree, then one that holds no prompt.

    Seen to fail with the cache that a model makes for itself (a traceback), and with trees beyond the window.
    """
    layers = {"layer_types": ["sliding_attention", "full_attention"]}
    if family in ("mistral", "llama4_text"):
        layers = {} if family == "mistral" else {"layer_types": ["chunked_attention", "full_attention"]}
    name = "attention_chunk_size" if family == "llama4_text" else "sliding_window"
    ends = ["1 rose soap", "2 silk powder", "eye liner", "hair brush", "night cream", "argan oil", "lemon"]
    prompts = ["Hi", *(f"{SESSION}{end}, nail polish" for end in ends)]  # "Hi": the session is no root
    longest = max(map(len, make(family).lm.encode(prompts)))
    for window, beyond in ((longest + NEW, False), (longest // 2, True)):
        caplog.clear()
        engine = make(family, {name: window, **layers})
        assert [answer.text for answer in answers(engine, prompts)] == one_by_one(engine, prompts)
        assert engine.lm.window == window
        assert any(f"attention window of {window} tokens" in line for line in caplog.messages) == beyond


def test_windows_that_are_switched_off_limit_nothing(make):
    assert make("qwen2", {"use_sliding_window": False, "sliding_window": 4}).lm.window == float("inf")
