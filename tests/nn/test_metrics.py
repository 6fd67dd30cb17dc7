"""Ranks and means against a table worked out by hand and an independent implementation."""

import math

import pytest
import torch
from sklearn.metrics import ndcg_score

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.metrics import SessionRanking, target_ranks


def scores_with_rank(rank, num_items=50):
    """Distinct scores in which item 1 has the given rank."""
    values = torch.arange(num_items, 0, -1.0)
    scores = torch.empty(num_items)
    scores[0] = values[rank - 1]
    scores[1:] = torch.cat((values[: rank - 1], values[rank:]))
    return scores


def test_the_table_worked_out_by_hand():
    ranks = [1, 5, 6, 20, 21, 50]
    metric = SessionRanking()
    metric.update(torch.stack([scores_with_rank(rank) for rank in ranks]), torch.ones(6, dtype=torch.long))
    got = {name: value.item() for name, value in metric.compute().items()}
    assert got["recall@5"] == pytest.approx(2 / 6)
    assert got["recall@10"] == pytest.approx(3 / 6)
    assert got["recall@20"] == pytest.approx(4 / 6)
    assert got["mrr@5"] == pytest.approx((1 + 1 / 5) / 6)  # misses stay in the denominator
    assert got["mrr@10"] == pytest.approx((1 + 1 / 5 + 1 / 6) / 6)
    assert got["mrr@20"] == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 20) / 6)
    assert got["ndcg@5"] == pytest.approx((1 + 1 / math.log2(6)) / 6)
    assert got["ndcg@20"] == pytest.approx((1 + 1 / math.log2(6) + 1 / math.log2(7) + 1 / math.log2(21)) / 6)


def test_constant_scores_earn_nothing():
    metric = SessionRanking()
    metric.update(torch.zeros(8, 1000), torch.arange(1, 9))
    assert all(value == 0 for value in metric.compute().values())


def test_nan_scores_earn_nothing():
    scores = torch.full((1, 100), torch.nan)
    assert target_ranks(scores, torch.tensor([3])).item() > 100
    scores = torch.zeros(1, 100)
    scores[0, 50:] = torch.nan
    scores[0, 0] = 1
    assert target_ranks(scores, torch.tensor([1])).item() == 51  # every NaN may be higher


def test_against_an_independent_implementation():
    torch.manual_seed(0)
    scores, target = torch.randn(200, 30), torch.randint(1, 31, (200,))
    metric = SessionRanking()
    for part in range(0, 200, 33):
        metric.update(scores[part : part + 33], target[part : part + 33])
    got = metric.compute()
    truth = torch.zeros_like(scores).scatter_(1, (target - 1).unsqueeze(1), 1.0)
    assert got["ndcg@10"].item() == pytest.approx(ndcg_score(truth.numpy(), scores.numpy(), k=10), abs=1e-6)
    assert got["ndcg@20"].item() == pytest.approx(ndcg_score(truth.numpy(), scores.numpy(), k=20), abs=1e-6)
    order = scores.argsort(dim=1, descending=True)
    places = (order == (target - 1).unsqueeze(1)).nonzero()[:, 1] + 1
    assert got["recall@5"].item() == pytest.approx((places <= 5).float().mean().item(), abs=1e-6)
    assert got["mrr@20"].item() == pytest.approx(((places <= 20) / places).mean().item(), abs=1e-6)


def test_order_and_batching_of_sessions_change_nothing():
    torch.manual_seed(1)
    scores, target = torch.randn(97, 40), torch.randint(1, 41, (97,))
    whole, parts = SessionRanking(), SessionRanking()
    whole.update(scores, target)
    order = torch.randperm(97)
    for rows in order.split(10):
        parts.update(scores[rows], target[rows])
    for name, value in whole.compute().items():
        assert value.item() == pytest.approx(parts.compute()[name].item(), abs=1e-9)


def test_no_session_at_all_is_zero_and_a_catalogue_of_one_is_one():
    assert all(value == 0 for value in SessionRanking().compute().values())
    metric = SessionRanking()
    metric.update(torch.zeros(1, 1), torch.tensor([1]))
    assert metric.compute()["mrr@5"] == 1


def test_cut_offs_are_checked():
    with pytest.raises(InputError, match="ks must"):
        SessionRanking(ks=[0])
