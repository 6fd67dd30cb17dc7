"""RowAdam: rows of tables by hand, everything else as Adam does."""

import copy

import pytest
import torch
from torch import nn

from llm4sbr.training.row_adam import RowAdam

LR, DECAY = 0.1, 0.5


def table(rows=6):
    torch.manual_seed(0)
    return nn.Embedding(rows, 3, sparse=True)


def step(optimizer, module, items):
    optimizer.zero_grad()
    module(torch.tensor(items)).square().sum().backward()
    optimizer.step()


def test_rows_are_those_of_a_dense_update():
    """Of all rows in every step, with the gradient zero for unused ones.

    Seen to fail with moments that only steps of a row decay.
    """
    module = table()
    rows, mean = module.weight.detach().clone(), torch.zeros(6)
    optimizer = RowAdam(module.parameters(), lr=LR, betas=(0.9, 0.8), eps=1e-3)
    for number, items in enumerate(([1, 2], [3], [3, 4], [2, 1], [3]), start=1):
        step(optimizer, module, items)
        gradient = torch.zeros_like(rows)
        gradient[items] = 2 * rows[items]
        mean = 0.8 * mean + 0.2 * gradient.square().mean(1)
        rows = rows - LR * gradient / ((mean / (1 - 0.8**number)).sqrt() + 1e-3).unsqueeze(1)
    torch.testing.assert_close(module.weight.detach(), rows)


def test_an_item_twice_in_a_step_is_one_update_of_the_sum():
    one, two = table(), table()
    step(RowAdam(one.parameters(), lr=LR), one, [4, 4])
    optimizer = RowAdam(two.parameters(), lr=LR)
    (2 * two(torch.tensor([4])).square()).sum().backward()
    optimizer.step()
    torch.testing.assert_close(one.weight, two.weight)


def test_dense_parameters_are_those_of_adam():
    """Beside a table in the same group."""
    one = nn.ModuleDict({"shop": table(), "linear": nn.Linear(3, 2)})
    other = copy.deepcopy(one["linear"])
    mine = RowAdam(one.parameters(), lr=LR, weight_decay=0.01)
    adam = torch.optim.Adam(other.parameters(), lr=LR, weight_decay=0.01)
    for _ in range(3):
        mine.zero_grad()
        adam.zero_grad()
        one["linear"](one["shop"](torch.tensor([1]))).sum().backward()
        for theirs, ours in zip(other.parameters(), one["linear"].parameters(), strict=True):
            theirs.grad = ours.grad.clone()
        mine.step()
        adam.step()
    for theirs, ours in zip(other.parameters(), one["linear"].parameters(), strict=True):
        assert torch.equal(theirs, ours)
    assert one["shop"].weight.grad is not None


@pytest.mark.parametrize("settled", [0, 3])
def test_decay_of_every_row_is_that_of_every_step(settled):
    """Rows catch up, whether they are used or settled; seen to fail with a decay of used rows alone."""
    module = table()
    weight = module.weight.detach().clone()
    optimizer = RowAdam(module.parameters(), lr=LR, weight_decay=DECAY, eps=1e6)  # all but no other change
    rates = [0.1, 0.05, 0.2, 0.1]
    for number, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        step(optimizer, module, [number, 5])
        if number < settled:
            optimizer.settle()
    optimizer.settle()
    optimizer.settle()
    left = torch.tensor([1 - rate * DECAY for rate in rates]).prod()
    torch.testing.assert_close(module.weight.detach(), weight * left, atol=1e-5, rtol=1e-5)


def test_a_saved_state_goes_on():
    one = table()
    first = RowAdam(one.parameters(), lr=LR, weight_decay=DECAY)
    step(first, one, [1, 2])
    other = copy.deepcopy(one)
    second = RowAdam(other.parameters(), lr=LR, weight_decay=DECAY)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, module in ((first, one), (second, other)):
        step(optimizer, module, [2, 3])
        optimizer.settle()
    assert torch.equal(one.weight, other.weight)
