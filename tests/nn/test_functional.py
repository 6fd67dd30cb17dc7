"""Catalogue operations against torch's own, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from llm4sbr.nn.functional import log_mean_potential, set_share, smoothed_cross_entropy, unit_rows


def compare(ours, theirs, *shape, dtype=torch.float64):
    torch.manual_seed(0)
    x = (3 * torch.randn(*shape, dtype=dtype)).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    found, expected = ours(x), theirs(twin)
    assert torch.allclose(found, expected)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(x.grad, twin.grad)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (2, 3, 4)])
def test_unit_rows_are_normalize(shape):
    """Seen to fail without the part of the gradient along the row, and with length and square mixed up."""
    compare(unit_rows, lambda x: F.normalize(x, dim=-1), *shape)


COLUMNS = torch.tensor([[0, 4, 0], [2, 2, 2], [1, 3, 5]])
COUNTED = torch.tensor([[False, True, True], [True, False, False], [True, True, True]])


def share_by_masks(scores, log_odds):
    """The same as an average of two softmaxes, written out."""
    named = torch.zeros_like(scores, dtype=torch.bool).scatter(1, COLUMNS, True)
    parts = (scores.masked_fill(~mask, -torch.inf).log_softmax(1).exp() for mask in (named, ~named))
    own, others = parts
    return (log_odds.sigmoid() * own + (-log_odds).sigmoid() * others).log()


@pytest.mark.parametrize("wanted", ["scores", "log_odds"])
def test_a_share_is_the_mixtures(wanted):
    """Values up to a number a row, and both gradients. Seen to fail without the others' probabilities in the
    gradient, without the named ones', and with a column counted as often as it is named."""
    odds = torch.tensor([[-3.0], [0.5], [2.0]], dtype=torch.float64)
    scores = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def ours(x):
        return set_share(
            *((x, COLUMNS, COUNTED, odds) if wanted == "scores" else (scores, COLUMNS, COUNTED, x))
        )

    compare(
        lambda x: ours(x).log_softmax(1),
        lambda x: share_by_masks(*((x, odds) if wanted == "scores" else (scores, x))),
        *(scores.shape if wanted == "scores" else odds.shape),
    )


def test_a_row_of_zeros_stays_and_its_neighbours_are_untouched():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit_rows(x)[1].sum().backward()
    assert unit_rows(x)[0].tolist() == [0, 0]
    assert x.grad[0].tolist() == [0, 0]
    assert x.grad[1].isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (4, 1)])
def test_the_cross_entropy_is_torchs(smoothing, shape):
    """Seen to fail without the smoothing's gradient, with the sum for the mean, with a wrong column."""
    column = torch.arange(shape[0]) % shape[1]
    compare(
        lambda x: smoothed_cross_entropy(x, column, smoothing),
        lambda x: F.cross_entropy(x, column, label_smoothing=smoothing),
        *shape,
    )


def test_it_holds_for_scores_far_apart_and_for_equal_ones():
    scores = torch.tensor([[1000.0, -1000.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    loss = smoothed_cross_entropy(scores, torch.tensor([1, 2]), 0.1)
    assert torch.allclose(loss, F.cross_entropy(scores, torch.tensor([1, 2]), label_smoothing=0.1))
    loss.backward()
    assert scores.grad.isfinite().all()


def test_gradients_can_be_asked_for_twice_where_the_graph_is_kept():
    """Seen to fail with probabilities overwritten by the first pass."""
    scores = torch.randn(3, 5, requires_grad=True)
    loss = smoothed_cross_entropy(scores, torch.tensor([0, 1, 2]))
    (first,) = torch.autograd.grad(loss, scores, retain_graph=True)
    (second,) = torch.autograd.grad(loss, scores)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "of",
    [
        unit_rows,
        lambda x: smoothed_cross_entropy(x, torch.tensor([0, 1, 2])),
        lambda x: set_share(x, COLUMNS, COUNTED, torch.zeros(3, 1)),
        lambda x: log_mean_potential(x.unsqueeze(0), torch.ones(1, 3, dtype=torch.bool)),
    ],
)
def test_a_second_derivative_is_an_error_and_not_a_wrong_number(of):
    x = torch.randn(3, 6, requires_grad=True)
    (first,) = torch.autograd.grad(of(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


KNOWN = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]]
).bool()


def potential_by_distance(x):
    """Pair by pair, from the distances."""
    found = []
    for vectors, known in zip(x, KNOWN, strict=True):
        ends = [(a, b) for a in range(5) for b in range(5) if a != b and known[a] and known[b]]
        each = [(-2 * (vectors[a] - vectors[b]).square().sum()).exp() for a, b in ends]
        found.append(torch.stack(each).mean().log() if each else x.sum() * 0)
    return torch.stack(found)


def test_the_mean_potential_is_that_of_the_pairs():
    """Values and gradients. Seen to fail with a vector paired with itself, and with half the gradient."""
    compare(
        lambda x: log_mean_potential(unit_rows(x), KNOWN),
        lambda x: potential_by_distance(F.normalize(x, dim=-1)),
        5, 5, 3,
    )  # fmt: skip


def test_equal_vectors_and_zeros_have_a_gradient():
    for x in (torch.ones(1, 4, 3), torch.zeros(1, 4, 3)):
        x.requires_grad_()
        found = log_mean_potential(unit_rows(x), torch.ones(1, 4, dtype=torch.bool))
        found.sum().backward()
        assert found.isfinite().all()
        assert x.grad.isfinite().all()


def test_the_mean_potential_is_exact_in_mixed_precision():
    """Rounded to bfloat16 the potentials of a batch would differ in the third digit."""
    x = unit_rows(torch.randn(1, 50, 8)).requires_grad_()
    known = torch.ones(1, 50, dtype=torch.bool)
    exact = log_mean_potential(x, known)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mean_potential(x, known), exact)
    half = x.detach().bfloat16().requires_grad_()
    log_mean_potential(half, known).sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_a_share_of_many_columns_is_the_same_without_a_gradient():
    """It makes fewer passes then."""
    scores = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(1))
    odds = torch.tensor([[-3.0], [0.5], [2.0]])
    expected = set_share(scores, COLUMNS, COUNTED, odds)
    with torch.no_grad():
        found = set_share(scores, COLUMNS, COUNTED, odds)
    torch.testing.assert_close(found, expected)
