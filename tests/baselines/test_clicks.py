"""What the baselines share: decays, tables, choice of the largest."""

import math

import numpy as np
import pytest

from llm4sbr import InputError
from llm4sbr.baselines.clicks import clicks_of
from llm4sbr.nn.counting import DECAYS, blocks, largest, spread, table_of
from llm4sbr.testing import make_batch, make_examples


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("last", [0, 0, 0, 1]),
        ("uniform", [1, 1, 1, 1]),
        ("linear", [1 / 4, 2 / 4, 3 / 4, 1]),
        ("quadratic", [1 / 16, 4 / 16, 9 / 16, 1]),
        ("harmonic", [1 / 4, 1 / 3, 1 / 2, 1]),
        ("log", [1 / math.log10(age + 1.7) for age in (3, 2, 1, 0)]),
        ("exponential", [math.exp(-3 / 2.5), math.exp(-2 / 2.5), math.exp(-1 / 2.5), 1]),
    ],
)
def test_decays_of_a_session_of_four_clicks(name, expected):
    weight = DECAYS[name](np.array([3.0, 2.0, 1.0, 0.0]), np.full(4, 4.0), 2.5)
    assert weight.tolist() == pytest.approx(expected)


def test_tables_keep_the_latest_click_of_a_repeated_item():
    table = table_of(make_examples([[5, 3, 5], [2, 2], [1, 4]]))
    assert table.start.tolist() == [0, 2, 3, 5]
    assert table.session.tolist() == [0, 0, 1, 2, 2]
    assert table.item.tolist() == [3, 5, 2, 1, 4]
    assert table.position.tolist() == [2, 3, 2, 1, 2]
    assert table.length.tolist() == [3, 2, 2]
    clicks = clicks_of(make_batch([[7], [5, 3, 5, 5, 2]], padding=2))
    assert clicks.row.tolist() == [0, 1, 1, 1]
    assert clicks.item.tolist() == [7, 2, 3, 5]
    assert clicks.age.tolist() == [0, 0, 3, 1]
    assert clicks.length.tolist() == [1, 5, 5, 5]


def test_the_largest_of_each_row_against_sorting():
    dice = np.random.default_rng(0)
    row = np.sort(dice.integers(0, 20, 300))
    value = dice.integers(0, 5, 300) / 3  # with many ties
    for count in (1, 4, 15, 400):
        expected = []
        for one in range(20):
            entries = np.flatnonzero(row == one).tolist()
            expected += sorted(sorted(entries, key=lambda entry: (-value[entry], -entry))[:count])
        assert largest(row, value, count).tolist() == expected
    assert largest(np.zeros(0, np.int64), np.zeros(0), 3).tolist() == []


def test_sums_of_the_same_terms_in_another_order_tie():
    third = np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1])
    assert third[0] > third[1]
    assert largest(np.array([0, 0]), third, 1).tolist() == [1]


def test_blocks_cover_everything_once():
    dice = np.random.default_rng(1)
    cost = dice.integers(0, 12, 100)
    cut = list(blocks(cost, limit=10))
    assert [place for one in cut for place in range(one.start, one.stop)] == list(range(100))
    assert all(cost[one].sum() <= 10 or one.stop - one.start == 1 for one in cut)
    assert len(cut) < 100
    assert list(blocks(np.zeros(0, np.int64))) == []


def test_rows_without_entries_spread_to_nothing():
    owner, where = spread(np.array([0, 0, 2]), np.array([0, 1, 0]))
    assert owner.tolist() == [1, 1]
    assert where.tolist() == [0, 1]


def test_no_training_session_is_an_error():
    with pytest.raises(InputError, match="no training session"):
        table_of(make_examples([[3]]))
