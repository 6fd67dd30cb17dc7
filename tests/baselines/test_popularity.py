"""POP and S-POP against counts by hand."""

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.baselines import Popularity
from llm4sbr.testing import make_batch, make_examples

TRAINING = make_examples([[1, 2, 2], [2, 3], [4, 3, 2]])  # clicks on 1..5: 1, 4, 2, 1, 0


def fitted(**settings):
    model = Popularity(**settings)
    model.fit(TRAINING, 5)
    return model


def test_pop_counts_clicks_targets_included():
    scores = fitted().scores(make_batch([[1], [2, 5]], padding=2))
    assert scores.tolist() == [[1, 4, 2, 1, 0]] * 2
    assert scores.dtype == torch.float32


def test_s_pop_counts_the_session_first_and_training_among_equals():
    scores = fitted(within_session=True).scores(make_batch([[5, 3, 5], [1]], padding=1))
    assert scores[0].tolist() == pytest.approx([1 / 5, 4 / 5, 1 + 2 / 5, 1 / 5, 2])
    assert scores[1].tolist() == pytest.approx([1 + 1 / 5, 4 / 5, 2 / 5, 1 / 5, 0])


def test_what_was_clicked_can_be_left_out():
    assert fitted(remind=False).scores(make_batch([[2, 3], [5]])).tolist() == [
        [1, 0, 0, 1, 0],
        [1, 4, 2, 1, 0],
    ]


def test_fitting_again_forgets():
    model = fitted()
    model.fit(make_examples([[5, 5]]), 6)
    assert model.scores(make_batch([[1]])).tolist() == [[0, 0, 0, 0, 2, 0]]


def test_wrong_use_is_refused():
    with pytest.raises(InputError, match="S-POP"):
        Popularity(within_session=True, remind=False)
    with pytest.raises(InputError, match="fit"):
        Popularity().scores(make_batch([[1]]))
    with pytest.raises(InputError, match="no training session"):
        Popularity().fit(make_examples([[1]]), 3)
