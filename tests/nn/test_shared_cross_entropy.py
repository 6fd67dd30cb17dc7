"""shared_cross_entropy against smoothed_cross_entropy of set_share: value, gradient and use."""

import pytest
import torch

from llm4sbr import SBRModule
from llm4sbr.backbones import GRU4Rec
from llm4sbr.nn.functional import set_share, smoothed_cross_entropy
from llm4sbr.nn.heads import RepeatExplore
from llm4sbr.nn.losses import FullSoftmax, full_softmax
from llm4sbr.nn.shared_cross_entropy import shared_cross_entropy
from llm4sbr.testing import make_batch

V = 7
SESSIONS = [[1, 3, 1], [2], [1, 2, 3, 4, 5, 6, 7], [5, 6]]  # the third has clicked every item
TARGETS = [3, 5, 2, 6]  # in, out, of all, in


def both(size, smoothing, dtype=torch.float64):
    """Values and gradients of both ways, of scores and log-odds."""
    torch.manual_seed(0)
    start = torch.randn(len(SESSIONS), V, dtype=dtype) * size, torch.randn(len(SESSIONS), 1, dtype=dtype)
    batch, target = make_batch(SESSIONS), torch.tensor(TARGETS) - 1
    clicks = batch.columns(), batch.latest_clicks()
    found = []
    for way in (
        lambda s, o: shared_cross_entropy(s, *clicks, o, target, smoothing),
        lambda s, o: smoothed_cross_entropy(set_share(s, *clicks, o), target, smoothing),
    ):
        leaves = [one.clone().requires_grad_() for one in start]
        value = way(*leaves)
        (3 * value).backward()
        found.append((value.detach(), *(one.grad for one in leaves)))
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_value_and_gradient(size, smoothing):
    for one, other in zip(*both(size, smoothing), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-9)


def test_gradient_is_numerically_right():
    batch, target = make_batch(SESSIONS), torch.tensor(TARGETS) - 1
    clicks = batch.columns(), batch.latest_clicks()
    torch.manual_seed(1)
    inputs = torch.randn(4, V, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    leaves = [one.requires_grad_() for one in inputs]
    assert torch.autograd.gradcheck(lambda s, o: shared_cross_entropy(s, *clicks, o, target, 0.2), leaves)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_model_uses_it_for_many_items_with_the_same_loss(smoothing, monkeypatch):
    """And every gradient; `forward` of the head is not called then."""
    batch, found = make_batch(SESSIONS, target=TARGETS), []
    for large in (1, 10**9):
        monkeypatch.setattr(full_softmax, "_LARGE", large)
        torch.manual_seed(0)
        head = RepeatExplore()
        model = SBRModule(GRU4Rec(V, 4), heads=[head], loss=FullSoftmax(smoothing)).eval()
        if large == 1:
            head.forward = lambda *_: 1 / 0
        loss = model.losses(batch)["loss"]
        loss.backward()
        found.append((loss.detach(), [one.grad for one in model.parameters() if one.grad is not None]))
    torch.testing.assert_close(*found)


def test_a_loss_of_ones_own_reads_the_scores_after_the_head(monkeypatch):
    monkeypatch.setattr(full_softmax, "_LARGE", 1)

    class Mine(FullSoftmax):
        def forward(self, scores, target):
            return scores.sum() * 0 + 5

    model = SBRModule(GRU4Rec(V, 4), heads=[RepeatExplore()], loss=Mine())
    assert model.losses(make_batch(SESSIONS, target=TARGETS))["loss"].item() == 5
