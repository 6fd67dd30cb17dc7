"""Item-kNN against loops over sets."""

import math

import numpy as np
import pytest
import torch

import llm4sbr.nn.item_neighbors as item_neighbors
from llm4sbr import InputError
from llm4sbr.baselines import ItemKNN
from llm4sbr.testing import make_batch, make_examples

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [12], [2, 9, 11, 1, 5, 2, 8, 10, 3, 3, 7, 6]]


def test_cosine_of_three_sessions():
    """Item 1 stands in 2 sessions, 2 in 3, 3 in 2; 1 and 2 meet twice, 1 and 3 once."""
    model = ItemKNN(regularization=0)
    model.fit(make_examples([[1, 2], [2, 1, 3], [3, 2]]), 4)
    expected = [0, 2 / math.sqrt(2 * 3), 1 / math.sqrt(2 * 2), 0]
    assert model.scores(make_batch([[1]]))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"regularization": 0.0},
        {"regularization": 3.0, "alpha": 0.8},
        {"alpha": 1.0, "regularization": 0.0, "order": "later", "pair_decay": "harmonic"},
        {"order": "later", "pair_decay": "last"},  # only the very next click
        {"pair_decay": "linear"},
        {"pair_decay": "exponential", "horizon": 1.5},
        {"weighting": "uniform", "remind": False},
        {"weighting": "linear", "neighbors": 3},
        {"weighting": "exponential", "horizon": 0.7, "neighbors": 1},
        {"weighting": "harmonic", "neighbors": 2, "regularization": 0.0, "remind": False},
    ],
)
def test_by_hand(by_hand, settings):
    training = [*by_hand.random_sessions(3), [7, 7], [7, 2, 7]]
    model = ItemKNN(**settings)
    model.fit(make_examples(training), 13)
    scores = model.scores(make_batch(SESSIONS, padding=2))
    assert scores.dtype == torch.float32
    for row, session in enumerate(SESSIONS):
        expected = torch.tensor(by_hand.item_knn(training, session, 13, **settings))
        assert torch.allclose(scores[row], expected, atol=1e-6), session
    assert scores.count_nonzero() > 10


def sequential_rules(training, num_items):
    """Sequential rules as published: the sum of inverse distances of every ordered pair of clicks."""
    rules = torch.zeros(num_items + 1, num_items)
    for session in training:
        for there in range(1, len(session)):
            for here in range(there):
                rules[session[here], session[there] - 1] += 1 / (there - here)
    return rules


@pytest.mark.parametrize("repeats", [0.2, 0.6])
def test_sequential_rules_find_repeated_targets(repeats):
    """Seen to fail with pairs of the items' latest clicks only."""
    draw = np.random.default_rng(0)
    sessions = []
    for _ in range(600):
        clicks = [int(draw.integers(1, 61))]
        while len(clicks) < 6:
            again = draw.random() < repeats
            clicks.append(
                int(draw.choice(clicks)) if again else (clicks[-1] + int(draw.integers(3))) % 60 + 1
            )
        sessions.append(clicks)
    model = ItemKNN(100, 0.0, 1.0, order="later", pair_decay="harmonic")
    model.fit(make_examples(sessions[:400]), 60)
    prefixes, targets = (
        [one[:-1] for one in sessions[400:]],
        torch.tensor([one[-1] for one in sessions[400:]]),
    )
    published = sequential_rules(sessions[:400], 60)[torch.tensor([one[-1] for one in prefixes])]

    def recall(scores):
        return (scores.topk(5).indices + 1 == targets[:, None]).any(1).double().mean()

    found = model.scores(make_batch(prefixes))
    assert recall(found) == pytest.approx(float(recall(published)), abs=0.02)  # ties


def test_some_items_at_a_time_are_the_same_as_all(by_hand, monkeypatch):
    training = make_examples(by_hand.random_sessions(5))
    whole, parts = ItemKNN(3), ItemKNN(3)
    whole.fit(training, 13)
    cut = item_neighbors.blocks
    monkeypatch.setattr(item_neighbors, "blocks", lambda cost: cut(cost, limit=1))
    parts.fit(training, 13)
    assert torch.equal(whole.scores(make_batch(SESSIONS)), parts.scores(make_batch(SESSIONS)))


def test_of_equal_neighbours_those_of_higher_number_are_kept():
    model = ItemKNN(neighbors=2)
    model.fit(make_examples([[1, 2, 3, 4]]), 4)
    assert (model.scores(make_batch([[1]]))[0] > 0).tolist() == [False, False, True, True]


def test_an_item_of_no_training_session_asks_and_gets_nothing():
    model = ItemKNN(weighting="uniform", regularization=0)
    model.fit(make_examples([[1, 2], [2, 3]]), 5)
    scores = model.scores(make_batch([[4], [4, 1], [1]]))
    assert scores[0].tolist() == [0] * 5
    assert torch.equal(scores[1], scores[2])
    assert scores[:, 3:].tolist() == [[0, 0]] * 3


def test_sessions_that_share_nothing_have_no_neighbours():
    model = ItemKNN()
    model.fit(make_examples([[1, 1], [2, 2]]), 2)
    assert model.scores(make_batch([[1], [2]])).tolist() == [[0, 0], [0, 0]]


def test_wrong_use_is_refused():
    for settings, named in (
        ({"neighbors": 0}, "neighbors"),
        ({"regularization": -1}, "regularization"),
        ({"alpha": 1.5}, "alpha"),
        ({"order": "earlier"}, "order"),
        ({"pair_decay": "slow"}, "pair_decay must be one of"),
        ({"weighting": "slow"}, "weighting must be one of"),
        ({"horizon": 0}, "horizon"),
    ):
        with pytest.raises(InputError, match=named):
            ItemKNN(**settings)
    with pytest.raises(InputError, match="fit"):
        ItemKNN().scores(make_batch([[1]]))
