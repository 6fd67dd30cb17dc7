"""Tree decoding against `generate`, one prompt at a time, and against every title scored by brute force."""

import random
from math import log

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from llm4sbr.views.engines import Answer
from llm4sbr.views.engines.decoding import decode_trees
from llm4sbr.views.engines.prefix_tree import grow_trees
from llm4sbr.views.engines.search import DecodingOptions
from llm4sbr.views.engines.title_trie import TitleTrie
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.prompts import build_prompt
from llm4sbr.views.templates import DEFAULT_TEMPLATES

TITLES = ["rose soap", "rose soap bar", "rose", "silk powder", "silk polish", "night cream", "Öl 7", "x"]
NEW = 12


@pytest.fixture(scope="module")
def make(tiny_llm):
    return lambda **options: TransformersEngine(
        tiny_llm, **{"max_new_tokens": NEW, "dtype": "float32", "device": "cpu", **options}
    )


@pytest.fixture(scope="module")
def prompts(stubs):
    """Every prefix of some sessions in both views, and some that share nothing or all but their end."""
    source = stubs.FakeSource(num_sessions=12)
    found = [
        build_prompt(view, prefix, source.catalogue)
        for prefix in source.examples("train").prefixes()
        for view in DEFAULT_TEMPLATES
    ]
    return list(dict.fromkeys([*found, "", "x", "Hi", found[0] + "?", "שמפו 😀"]))


def answers(engine, prompts):
    replies = [reply for group in engine.generate(prompts) for reply in group]
    assert sorted(reply.place for reply in replies) == list(range(len(prompts)))
    return [reply.outcome for reply in sorted(replies)]


def generated(engine, prompt, **options):
    """What transformers' own `generate` makes of one prompt."""
    tokens = torch.tensor([engine.lm.encode([prompt])[0]])
    model = engine.lm.model
    output = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW, **options
    )
    return output[0, tokens.size(1) :].tolist()


def cut(tokens, stops):
    """Before the first stop token, and whether there was one."""
    end = next((n for n, token in enumerate(tokens) if token in stops), None)
    return tokens[:end], end is not None


def same(one, other):
    """Answers that differ at most by rounding in their probabilities, and by what was shared."""
    assert [a._replace(choices=(), computed_tokens=0) for a in one] == [
        a._replace(choices=(), computed_tokens=0) for a in other
    ]
    for a, b in zip(one, other, strict=True):
        assert [choice.text for choice in a.choices] == [choice.text for choice in b.choices]
        assert [c.probability for c in a.choices] == pytest.approx([c.probability for c in b.choices], 1e-3)


def test_greedy_answers_are_those_of_generate(make, prompts):
    """Seen to fail with the mask of the tree all true, and with positions counted from the root."""
    engine, finished = make(), 0
    engine.lm.stop_ids = frozenset({2, *range(100, 140)})  # a random model seldom stops by itself
    engine.lm.model.generation_config.eos_token_id = sorted(engine.lm.stop_ids)
    for prompt, answer in zip(prompts, answers(engine, prompts), strict=True):
        tokens, stopped = cut(generated(engine, prompt), engine.lm.stop_ids)
        text = engine.lm.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        length = len(engine.lm.encode([prompt])[0])
        assert answer == Answer(text, length, answer.computed_tokens, len(tokens), stopped)
        finished += stopped
    assert 5 < finished < len(prompts) - 5  # both kinds of end were seen


def test_constrained_greedy_is_generate_with_allowed_tokens(make, prompts):
    """Seen to fail with the best of all tokens taken where it is among the allowed ones only by luck."""
    engine = make(choices=TITLES)
    (stop,) = engine.lm.stop_ids
    paths = [[*engine.lm.plain([title])[0], stop] for title in TITLES]
    for prompt, answer in zip(prompts, answers(engine, prompts), strict=True):
        start = len(engine.lm.encode([prompt])[0])

        def allowed(_, tokens, start=start):
            said = tokens[start:].tolist()
            return [path[len(said)] for path in paths if path[: len(said)] == said and len(path) > len(said)]

        said = generated(engine, prompt, prefix_allowed_tokens_fn=allowed)
        (title,) = (title for title, path in zip(TITLES, paths, strict=True) if path == said)
        assert answer.text == title
        assert answer.finished
    assert len({answer.text for answer in answers(engine, prompts)}) > 3


def brute_force(engine, prompt, titles):
    """Log probability of every title among the allowed tokens, each from a forward pass of its own."""
    (stop,) = engine.lm.stop_ids
    paths = [(*engine.lm.plain([title])[0], stop) for title in titles]
    start, scores = engine.lm.encode([prompt])[0], {}
    for title, path in zip(titles, paths, strict=True):
        with torch.no_grad():
            logits = engine.lm.model(torch.tensor([[*start, *path]])).logits[0, len(start) - 1 :].double()
        score = 0.0
        for at, token in enumerate(path):
            allowed = sorted({other[at] for other in paths if other[:at] == path[:at]})
            score += float(log_softmax(logits[at, allowed], -1)[allowed.index(token)])
        scores[title] = score
    return scores


@pytest.mark.parametrize("num_answers", [len(TITLES), len(TITLES) + 5])
def test_wide_beams_are_exhaustive(make, prompts, num_answers):
    """Seen to fail with scores over the whole vocabulary, and with a beam's parent taken for another's."""
    engine = make(choices=TITLES, num_answers=num_answers)
    greedy = answers(make(choices=TITLES), prompts)
    for prompt, answer, alone in zip(prompts[::5], answers(engine, prompts)[::5], greedy[::5], strict=True):
        scores = brute_force(engine, prompt, TITLES)
        assert [choice.text for choice in answer.choices] == sorted(TITLES, key=lambda title: -scores[title])
        assert [log(choice.probability) for choice in answer.choices] == pytest.approx(
            sorted(scores.values(), reverse=True), abs=1e-3
        )
        assert sum(choice.probability for choice in answer.choices) == pytest.approx(1, abs=1e-5)
        assert answer.text == answer.choices[0].text
        assert scores[alone.text] <= scores[answer.text] + 1e-6  # a beam is never worse than greedy


def test_narrow_beams_are_sorted_and_the_first_of_one_is_greedy(make, prompts):
    greedy = answers(make(choices=TITLES), prompts)
    wide = answers(make(choices=TITLES, num_answers=len(TITLES)), prompts)
    agree = 0
    for alone, all_of_them, beams in zip(
        greedy, wide, answers(make(choices=TITLES, num_answers=3), prompts), strict=True
    ):
        shares = [choice.probability for choice in beams.choices]
        assert len(set(beams.choices)) == 3
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-6
        exact = dict(all_of_them.choices)
        assert shares == pytest.approx([exact[choice.text] for choice in beams.choices], rel=1e-3)
        agree += alone.text == beams.text
    assert agree > len(prompts) / 2


def test_free_beams_are_scored_as_a_forward_pass_scores_them(make, prompts):
    engine = make(num_answers=4, max_new_tokens=3)
    for prompt, answer in zip(prompts[:8], answers(engine, prompts[:8]), strict=True):
        assert len(answer.choices) == 4
        shares = [choice.probability for choice in answer.choices]
        assert shares == sorted(shares, reverse=True)
        start = engine.lm.encode([prompt])[0]
        (tree,) = grow_trees([start])
        best = decode_trees(engine.lm.model, [tree], DecodingOptions(3, engine.lm.stop_ids, 4))[0][0]
        for one, share in zip(best, shares, strict=True):
            said = [*one.tokens, *([2] if one.finished else [])]
            with torch.no_grad():
                logits = engine.lm.model(torch.tensor([[*start, *said]])).logits[0, len(start) - 1 : -1]
            score = log_softmax(logits, -1)[range(len(said)), said].sum()
            assert one.score == pytest.approx(float(score), abs=1e-3)
            assert log(share) == pytest.approx(one.score, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"choices": TITLES}, {"choices": TITLES, "num_answers": 3}])
def test_company_changes_no_answer(make, prompts, options):
    """Alone, together, in small passes, in any order. Seen to fail with finished trees left out of order."""
    engine = make(**options)
    expected = answers(engine, prompts)
    same([answers(engine, [prompt])[0] for prompt in prompts[::7]], expected[::7])
    same(answers(make(**options, batch_tokens=1), prompts), expected)
    same(answers(make(**options, batch_tokens=200), prompts), expected)
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    same(answers(engine, [prompts[place] for place in order]), [expected[place] for place in order])


def test_finished_trees_leave_the_batch(make, prompts, monkeypatch):
    """Answers of very different lengths; the widths that the model saw shrink."""
    titles = ["x", "y", "rose soap " * 20, "rose soap " * 20 + "z", "rose soap " * 19]
    engine, widths = make(choices=titles, batch_tokens=10**6), []
    forward = engine.lm.model.forward

    def seen(*args, **kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        widths.append(ids.size(0))
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.lm.model, "forward", seen)
    lone = [f"{n} {prompt}" for n, prompt in enumerate(prompts[::9])]  # nothing shared: a tree for each
    found = answers(engine, lone)
    assert max(widths) > 2 * min(widths[3:])
    assert {len(answer.text) for answer in found} > {1}
    same(found, [answers(engine, [prompt])[0] for prompt in lone])


def test_what_is_computed_is_counted(make, prompts):
    """Seen to fail with a prompt's whole length counted."""
    engine, seen = make(), []
    assert engine.lm.reads_trees  # tries the model once; not counted
    forward = engine.lm.model.forward

    def counted(*args, **kwargs):
        if kwargs.get("logits_to_keep") == 1:  # reading prompts, not answering
            ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
            seen.append(int((ids != 0).sum()))  # token 0 is in no prompt, only in padding
        return forward(*args, **kwargs)

    engine.lm.model.forward = counted
    found = answers(engine, prompts)
    tokens = engine.lm.encode(prompts)
    total, computed = sum(map(len, tokens)), sum(answer.computed_tokens for answer in found)
    assert [answer.prompt_tokens for answer in found] == [len(one) for one in tokens]
    assert all(0 < answer.computed_tokens <= answer.prompt_tokens for answer in found)
    assert computed < total / 2  # prefixes of sessions, and two views of each
    assert sum(seen) + len(prompts) == computed  # the last token of each is fed when it is asked


def test_ids_that_belong_to_no_prompt_are_padding(make):
    """A tree of no tokens beside a long one, with and without a shared beginning."""
    engine = make()
    model, options = engine.lm.model, DecodingOptions(5, engine.lm.stop_ids)
    lone = [[7], [8], [9, *range(20, 90)], [9, *range(20, 60)]]
    trees = list(grow_trees(lone))
    assert len(trees) == 3
    found = decode_trees(model, trees, options)
    for tree, parts in zip(trees, found, strict=True):
        for place, (best,) in zip(tree.place, parts, strict=True):
            (alone,) = grow_trees([lone[place]])
            assert decode_trees(model, [alone], options)[0][0][0].tokens == best.tokens
    trie = TitleTrie([[7, 8], [7]], 2)
    one = decode_trees(model, trees, DecodingOptions(1, engine.lm.stop_ids, 1, trie))
    assert {best.choice for parts in one for (best,) in parts} <= {0, 1}
    assert np.isfinite([best.score for parts in one for (best,) in parts]).all()
