import numpy as np
import pytest
import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.localization import localize, mix, view_from_titles


def reference(answers, titles, mask, r):
    """Eq. 4-5 written out with loops, in double precision."""
    ids, weights = np.zeros((len(answers), r), int), np.zeros((len(answers), r))
    for n, answer in enumerate(answers):
        pairs = []
        for v, title in enumerate(titles):
            if mask[v] and np.linalg.norm(answer) > 0:
                pairs.append(
                    (-round(float(answer @ title / np.linalg.norm(answer) / np.linalg.norm(title)), 9), v + 1)
                )
        for place, (negative, item) in enumerate(sorted(pairs)[:r]):
            ids[n, place], weights[n, place] = item, -negative
    return ids, weights


@pytest.mark.parametrize("r", [1, 3, 5])
@pytest.mark.parametrize("chunk_size", [1, 4, 512])
def test_equals_reference_with_negative_similarities_and_untitled_items(r, chunk_size):
    generator = torch.Generator().manual_seed(r)
    answers, titles = torch.randn(9, 6, generator=generator), torch.randn(40, 6, generator=generator)
    answers[4] = 0
    mask = torch.rand(40, generator=generator) > 0.3
    ids, weights = localize(answers, titles, mask, r, chunk_size)
    expected_ids, expected_weights = reference(
        answers.double().numpy(), titles.double().numpy(), mask.numpy(), r
    )
    assert ids.tolist() == expected_ids.tolist()
    assert np.allclose(weights.numpy(), expected_weights, atol=1e-5)
    assert ids[4].tolist() == [0] * r


def test_each_title_is_weighted_by_its_own_similarity():
    """Fault 3 of the reference code: it weighs the top titles by the similarities of items 0..r-1."""
    titles = torch.eye(6)[:, :6]
    answer = torch.tensor([[0.0, 0.1, 0.0, 0.0, 0.9, 0.4]])
    answer = answer / answer.norm()
    ids, weights = localize(answer, titles, torch.ones(6, dtype=torch.bool), r=2)
    assert ids.tolist() == [[5, 6]]
    view = view_from_titles(ids, weights, torch.cat((torch.zeros(1, 6), titles)))
    expected = torch.zeros(1, 6)
    expected[0, 4], expected[0, 5] = answer[0, 4], answer[0, 5]
    assert torch.allclose(view, expected)
    faulty = (answer @ titles.T)[:, :2] @ titles[[4, 5]]  # what the fault would give
    assert not torch.allclose(view, faulty)


def test_ties_go_to_the_lower_id_and_padding_adds_nothing():
    titles = torch.tensor([[0.0, 1.0]] + [[1.0, 0.0]] * 700)
    ids, _ = localize(torch.tensor([[1.0, 0.0]] * 3), titles, torch.ones(701, dtype=torch.bool), r=4)
    assert ids.tolist() == [[2, 3, 4, 5]] * 3


def test_similarities_that_round_alike_tie_and_are_kept_unrounded():
    """Seen to fail with the raw similarities ranked, and with the rounded ones kept."""
    titles = torch.tensor([[1.0, 6e-4], [1.0, 0.0]])
    ids, weights = localize(torch.tensor([[1.0, 0.0]]), titles, torch.ones(2, dtype=torch.bool), r=2)
    assert ids.tolist() == [[1, 2]]
    assert weights[0, 0] < weights[0, 1] == 1


def test_one_answer_keeps_its_titles_and_the_weights_of_several_are_added():
    ids, weights = torch.tensor([[[4, 2, 0]]]), torch.tensor([[[-0.5, 0.25, 0.0]]])
    one = mix(ids, weights, torch.tensor([[0.1]]), 3)
    assert (one[0].tolist(), one[1].tolist()) == ([[4, 2, 0]], [[-0.5, 0.25, 0.0]])
    ids, weights = torch.tensor([[[4, 2], [2, 0]]]), torch.tensor([[[-0.5, 0.25], [1.0, 0.0]]])
    several = mix(ids, weights, torch.tensor([[3.0, 1.0]]), 2)
    assert (several[0].tolist(), several[1].tolist()) == ([[2, 4]], [[0.4375, -0.375]])


def test_catalogue_smaller_than_r():
    ids, weights = localize(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([True]), r=5)
    assert ids.tolist() == [[1, 0, 0, 0, 0]]
    assert weights[0].tolist() == pytest.approx([0.6, 0, 0, 0, 0])
    ids, _ = localize(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([False]), r=2)
    assert ids.tolist() == [[0, 0]]
    assert localize(torch.zeros(0, 2), torch.ones(3, 2), torch.ones(3, dtype=torch.bool))[0].shape == (0, 5)


def test_refuses_what_it_cannot_rank():
    one = torch.ones(1, dtype=torch.bool)
    with pytest.raises(InputError, match="finite"):
        localize(torch.tensor([[float("nan")]]), torch.ones(1, 1), one)
    with pytest.raises(InputError, match="at least 1"):
        localize(torch.ones(1, 1), torch.ones(1, 1), one, r=0)
