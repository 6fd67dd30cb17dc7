"""FastDropout: rate, scale, gradient and reproducibility."""

import pytest
import torch

from llm4sbr.nn.dropout import FastDropout

LARGE = (500, 401)  # more than 2^16 numbers, no multiple of four


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_share_scale_and_independence(rate):
    """Seen to fail with `random_()`, which draws no negative word."""
    torch.manual_seed(0)
    x = torch.rand(LARGE) + 1
    made = FastDropout(rate)(x)
    dropped = made == 0
    tolerance = 5 * (rate * (1 - rate) / x.numel()) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(rate, abs=tolerance)
    for place in range(4):  # of the four numbers of a word
        share = dropped.flatten()[place::4].float().mean().item()
        assert share == pytest.approx(rate, abs=2 * tolerance)
    pairs = dropped.flatten()[:-1] & dropped.flatten()[1:]
    assert pairs.float().mean().item() == pytest.approx(rate**2, abs=2 * tolerance)
    torch.testing.assert_close(made[~dropped], (x / (1 - rate))[~dropped], rtol=1e-4, atol=0)


def test_gradient_is_that_of_the_kept_numbers():
    x = torch.rand(LARGE, requires_grad=True)
    made = FastDropout(0.3)(x)
    made.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), made.detach())


def test_the_seed_decides():
    made = []
    for _ in range(2):
        torch.manual_seed(4)
        made.append(FastDropout(0.3)(torch.ones(LARGE)))
    assert torch.equal(*made)


@pytest.mark.parametrize("size", [(3, 5), LARGE])
def test_nothing_is_dropped_in_evaluation_or_without_a_rate(size):
    x = torch.rand(size)
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0)(x), x)


def test_small_inputs_are_those_of_torch():
    x, made = torch.ones(50, 50), []
    for kind in (FastDropout, torch.nn.Dropout):
        torch.manual_seed(0)
        made.append(kind(0.4)(x))
    assert torch.equal(*made)


def test_bfloat16_stays():
    assert FastDropout(0.5)(torch.ones(LARGE, dtype=torch.bfloat16)).dtype == torch.bfloat16
