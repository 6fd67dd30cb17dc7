"""Session-kNN against loops over sets, every option alone and together."""

import math
from dataclasses import replace

import pytest
import torch

import llm4sbr.baselines.session_knn as session_knn
from llm4sbr import InputError
from llm4sbr.baselines import SessionKNN
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.testing import make_batch, make_examples

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [12], [2, 9, 11, 1, 5, 2, 8, 10, 3, 3, 7, 6]]


def unseen(sessions, **settings):
    """A batch of sessions that are no training examples."""
    batch = make_batch(sessions, **settings)
    return batch._replace(example_index=torch.full_like(batch.example_index, -1))


def test_sknn_of_three_sessions():
    """The current session is {1, 2}: it shares both items with the first, one with the second."""
    model = SessionKNN()
    model.fit(make_examples([[1, 2, 3], [2, 4], [5, 6]]), 6)
    first, second = 2 / math.sqrt(2 * 3), 1 / math.sqrt(2 * 2)
    expected = [first, first + second, first, second, 0, 0]
    assert model.scores(unseen([[1, 2]]))[0].tolist() == pytest.approx(expected)


OPTIONS = [
    {},
    {"k": 3},
    {"k": 1, "sample_size": 2},
    {"sample_size": 4},
    {"sample_size": 0, "k": 7},
    {"similarity": "dot", "weighting": "linear"},
    {"similarity": "dot", "weighting": "linear", "k": 5, "sample_size": 9},
    {"weighting": "quadratic", "k": 4},
    {"weighting": "log", "k": 4},
    {"weighting": "last"},
    {"weighting": "exponential", "horizon": 0.8, "k": 6},
    {"score_weighting": "linear"},
    {"score_weighting": "harmonic", "weighting": "harmonic", "k": 5},
    {"score_weighting": "last", "remind": False},
    {"idf": 5.0},
    {"item_horizon": 1.7},
    {"remind": False, "k": 4},
    {
        "k": 6, "sample_size": 11, "weighting": "exponential", "score_weighting": "exponential", "idf": 2.0,
        "horizon": 1.3, "item_horizon": 2.1, "remind": False,
    },
]  # fmt: skip


@pytest.mark.parametrize("settings", OPTIONS)
def test_by_hand(by_hand, settings):
    training = [*by_hand.random_sessions(8), [7, 7], [7, 2, 7]]
    model = SessionKNN(**settings)
    model.fit(make_examples(training), 13)
    scores = model.scores(unseen(SESSIONS, padding=2))
    assert scores.dtype == torch.float32
    for row, session in enumerate(SESSIONS):
        expected = torch.tensor(by_hand.session_knn(training, session, 13, **settings))
        assert torch.allclose(scores[row], expected, atol=1e-5), session
    assert scores.count_nonzero() > 10


@pytest.mark.parametrize("settings", [OPTIONS[0], OPTIONS[-1]])
def test_a_training_session_is_not_its_own_neighbour(by_hand, settings):
    training = by_hand.random_sessions(4)
    examples = replace(make_examples(training), first_index=1000)
    model = SessionKNN(**settings)
    model.fit(examples, 12)
    batch = make_batch([list(prefix) for prefix in examples.prefixes()])
    scores = model.scores(batch._replace(example_index=1000 + torch.arange(len(examples))))
    for row, prefix in enumerate(examples.prefixes()):
        own = int(examples.session[row])
        expected = torch.tensor(by_hand.session_knn(training, prefix, 12, own=own, **settings))
        assert torch.allclose(scores[row], expected, atol=1e-5), prefix


def test_the_first_index_tells_training_examples_from_others():
    model = SessionKNN()
    model.fit(replace(make_examples([[1, 2], [1, 3]]), first_index=10), 3)
    batch = make_batch([[1]] * 4)._replace(example_index=torch.tensor([9, 10, 11, 12]))
    found = [(row > 0).tolist() for row in model.scores(batch)]
    assert found == [[True, True, True], [True, False, True], [True, True, False], [True, True, True]]


def test_some_sessions_at_a_time_are_the_same_as_all(by_hand, monkeypatch):
    model = SessionKNN(k=5, sample_size=9, score_weighting="linear", item_horizon=2.0)
    model.fit(make_examples(by_hand.random_sessions(5)), 13)
    whole = model.scores(unseen(SESSIONS))
    cut = session_knn.blocks
    monkeypatch.setattr(session_knn, "blocks", lambda cost: cut(cost, limit=1))
    assert torch.equal(model.scores(unseen(SESSIONS)), whole)


def test_an_item_of_no_training_session_asks_and_gets_nothing():
    model = SessionKNN(idf=1.0)
    model.fit(make_examples([[1, 2], [2, 3]]), 5)
    scores = model.scores(unseen([[4], [4, 1], [1]]))
    assert scores[0].tolist() == [0] * 5
    assert torch.equal(scores[1] > 0, scores[2] > 0)
    assert scores[:, 3:].tolist() == [[0, 0]] * 3
    assert scores.isfinite().all()


def test_of_equally_similar_sessions_the_latest_are_neighbours():
    model = SessionKNN(k=1)
    model.fit(make_examples([[1, 2], [1, 3], [4, 5]]), 5)
    assert (model.scores(unseen([[1]]))[0] > 0).tolist() == [True, False, True, False, False]


def test_equal_votes_tie_whatever_the_order_of_their_terms():
    """Items 8 and 9 get the same three similarities from sessions in different order."""
    sessions = [[1, 8], [1, 2, 8], [1, 2, 3, 4, 8], [1, 2, 3, 4, 9], [1, 2, 9], [1, 9]]
    model = SessionKNN()
    model.fit(make_examples(sessions), 9)
    scores = model.scores(unseen([[1]]))
    assert scores[0, 7] == scores[0, 8] > 0
    assert target_ranks(scores, torch.tensor([8])).item() == target_ranks(scores, torch.tensor([9])).item()
    nothing = target_ranks(scores, torch.tensor([7])).item()  # ties with 5, 6 and itself alone
    assert nothing == 1 + 6 + 2 / 2


def test_an_empty_batch_has_no_scores():
    model = SessionKNN()
    model.fit(make_examples([[1, 2]]), 4)
    batch = unseen([[1]])
    assert model.scores(type(batch)(*(part[:0] for part in batch[:4]))).shape == (0, 4)


def test_wrong_use_is_refused():
    for settings, named in (
        ({"k": 0}, "k must be a whole number of at least 1"),
        ({"sample_size": -1}, "sample_size"),
        ({"similarity": "jaccard"}, "similarity must be"),
        ({"weighting": "slow"}, "weighting must be one of"),
        ({"score_weighting": "slow"}, "score_weighting must be one of"),
        ({"idf": -1}, "idf"),
        ({"horizon": 0}, "horizon"),
        ({"item_horizon": 0}, "horizon"),
    ):
        with pytest.raises(InputError, match=named):
            SessionKNN(**settings)
    with pytest.raises(InputError, match="fit"):
        SessionKNN().scores(make_batch([[1]]))
    with pytest.raises(InputError, match="no training session"):
        SessionKNN().fit(make_examples([[1]]), 3)
