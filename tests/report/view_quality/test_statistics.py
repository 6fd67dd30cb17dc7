"""The pure measures of views and answers, against loops by hand."""

import math

import numpy as np
import pytest
import torch

from experiments.study.intervals import interval
from llm4sbr import Catalogue
from llm4sbr.report.view_quality.answers import count_answers, repeats_a_title
from llm4sbr.report.view_quality.statistics import (
    METRICS,
    chance,
    gains,
    intervals,
    rank_targets,
    title_scores,
)
from llm4sbr.views.engines import Answer
from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.inference.summary import normal_titles
from llm4sbr.views.store.spec import AnswerSpec

ENGINE = EngineIdentity(ModelIdentity("tiny", "tiny"), {"strategy": "greedy"}, "")
ASKED = AnswerSpec("long_term", "{items}", ENGINE, 3, 100, 1)


def answered(text, tokens=10):
    return Answer(text=text, prompt_tokens=tokens, computed_tokens=4, answer_tokens=3, finished=True)


def test_ranks_are_those_of_a_loop_over_the_items():
    """Seen to fail with repeated clicks counted twice, ties of own clicks kept, and `<` for `<=`."""
    draw = np.random.default_rng(0)
    scores = torch.from_numpy(draw.integers(0, 6, (40, 12))).float()
    scores[draw.random((40, 12)) < 0.1] = -torch.inf
    items = torch.from_numpy(draw.integers(1, 13, (40, 5)))
    items[draw.random((40, 5)) < 0.3] = 0
    items = items.sort(1, descending=True).values
    target = torch.from_numpy(draw.integers(1, 13, 40))
    found = rank_targets(scores, items, target)
    clicked_before = 0
    for row in range(40):
        own, goal, line = set(items[row].tolist()), int(target[row]), scores[row].tolist()
        for ranks, left_out in ((found.every, set()), (found.unclicked, own)):
            others = [line[n - 1] for n in range(1, 13) if n != goal and n not in left_out]
            aim = line[goal - 1]
            rank = 1 + sum(one > aim for one in others) + sum(one == aim for one in others) / 2
            assert ranks[row] == (math.inf if goal in left_out else rank)
        clicked_before += goal in own
        assert line[int(found.nearest[row]) - 1] == max(line)
    assert clicked_before > 3


def test_equal_titles_tie_and_the_untitled_come_last():
    """Seen to fail without the mask, and with views that are not normalised."""
    draw = torch.Generator().manual_seed(1)
    titles = torch.nn.functional.normalize(torch.randn(400, 96, generator=draw), dim=-1)
    titles[200:] = titles[:200]
    mask = torch.ones(400, dtype=torch.bool)
    mask[[5, 205]] = False
    views = torch.randn(7, 96, generator=draw) * 9
    views[3] = 0
    scores = title_scores(views, titles, mask)
    assert (scores[:, :200] == scores[:, 200:]).all()
    assert (scores[:, [5, 205]] == -torch.inf).all()
    assert (scores[3, mask] == 0).all()
    assert scores[0, 7].item() == pytest.approx(
        torch.cosine_similarity(views[0], titles[7], dim=0).item(), abs=1e-6
    )


def test_what_chance_earns_is_the_mean_over_all_ranks():
    for metric in METRICS:
        expected = [gains(np.arange(1.0, n + 1), metric).mean() if n else 0.0 for n in (0, 3, 150)]
        assert chance(np.array([0.0, 3.0, 150.0]), metric) == pytest.approx(expected)


def test_intervals_agree_with_the_experiments_and_widen_with_clusters():
    """Seen to fail with examples drawn instead of sessions."""
    draw = np.random.default_rng(2)
    session = np.repeat(np.arange(80), draw.integers(1, 9, 80))
    clustered = (draw.random(80) < 0.3).astype(float)[session]
    loose = draw.permutation(clustered)
    found = intervals(np.stack([clustered, loose, clustered - loose, loose - clustered], 1), session)
    assert found[:, 0] == pytest.approx(interval(clustered, session), abs=0.012)
    assert found[:, 2] == pytest.approx(interval(clustered - loose, session), abs=0.012)
    assert found[:, 2] == pytest.approx(-found[::-1, 3])  # one draw of sessions serves every column
    width = found[1] - found[0]
    assert width[0] > 1.4 * width[1]
    assert np.isnan(intervals(np.ones((3, 1)), np.array([4, 4, 4]))).all()


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Seen to fail with the 16th and 84th percentile."""
    draw, covered = np.random.default_rng(3), 0
    session = np.repeat(np.arange(60), 2)
    for trial in range(200):
        values = (draw.random(60) < 0.3).astype(float)[session]
        low, high = intervals(values[:, None], session, draws=400, seed=trial)[:, 0]
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198


def test_answers_are_counted_by_hand():
    """Seen to fail with the whole session as the prompt, and without the answers cut inside a title."""
    catalogue = Catalogue(tuple("abcd"), ("Rose Soap", "Night Cream", "", "Very Fine Lemon Shampoo 3 Oz"))
    said = [
        ((1, 2), answered("rose soap")),  # repeats
        ((1, 2), answered("2. 'Night Cream'.")),  # repeats, and is the same title whatever surrounds it
        ((2, 4), answered("Rose Soap")),  # a title, but none of the prompt; the same answer as the first
        ((1, 2, 3, 2, 2, 2), answered("Rose Soap")),  # the prompt shows three clicks only
        ((3,), answered("")),
        ((4,), answered("You may like very fine lemon sham")._replace(finished=False)),  # three words: no
        ((4,), answered("You may like very fine lemon shampoo 3")._replace(finished=False)),  # cut within it
        ((4,), answered("You may like very fine lemon shampoo 3")),  # not cut: something else
    ]
    facts = count_answers(said, ASKED, catalogue, normal_titles(catalogue, 100))
    assert (facts.answers, facts.empty, facts.cut, facts.off_catalogue) == (8, 1, 2, 3)
    assert facts.repeats == 3
    assert facts.distinct == 5
    assert facts.frequent == (("rose soap", 3), ("You may like very fine lemon shampoo 3", 2))
    assert (facts.prompt_tokens, facts.computed_tokens, facts.answer_tokens) == (80, 32, 24)
    assert facts.share(facts.cut) == 0.25
    assert not repeats_a_title(answered("anything"), ["", "  ", "!!"])
