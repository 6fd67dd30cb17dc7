"""Items held out of training: what the data hold, and how targets are ranked."""

import numpy as np
import polars as pl
import pytest
import torch
from letters import Letters
from shops import PARTS, SOAPS, write_shop

from experiments.study import held_out
from experiments.study.cold_ranks import Targets, nearest, popular, rank, some, targets
from experiments.study.data import data_module
from experiments.study.held_out import hold_out
from experiments.study.new_items import told


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, SOAPS, sessions=30, parts=PARTS, clicks=lambda session: 4 + session % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "SentenceEncoder", Letters)
        return hold_out(data_module(str(root / "data.yaml"), None), 0.25, 0, root / "work", 50)


def test_training_never_sees_the_cold_items(held):
    """All else is there in both."""
    assert len(held.cold) == 3
    whole, warm = (data_module(str(path), None) for path in (held.whole, held.warm))
    assert set(warm.catalogue.item_ids) == set(whole.catalogue.item_ids) - held.cold
    for split in ("train", "validate", "test"):
        clicks = {}
        for name, source in (("whole", whole), ("warm", warm)):
            ids = source.catalogue.item_ids
            clicks[name] = [[ids[item - 1] for item in one] for one in source.examples(split).sessions()]
        kept = [[item for item in one if item not in held.cold] for one in clicks["whole"]]
        assert sorted(clicks["warm"]) == sorted(one for one in kept if len(one) > 1)
    events = pl.read_parquet(held.warm.parent / "events.parquet")
    assert not set(events["item_id"]) & held.cold
    given = targets(whole, "test", held.cold)
    assert given.cold.tolist() == [item in held.cold for item in given.target]
    half = some(given, 6)
    assert (len(half.target), half.cold.sum()) == (6, 3)


def test_a_target_without_a_known_click_or_row_is_a_miss():
    given = Targets(
        [["a", "x"], ["x"], ["b"]], ["b", "a", "x"], np.array([0, 1, 2]), np.array([False, False, True])
    )
    ranks = rank(
        lambda sessions: torch.tensor([[0.5, 0.1]]).expand(len(sessions), 2), {"a": 1, "b": 2}, given
    )
    assert ranks.tolist() == [2, np.inf, np.inf]


def test_the_baselines_by_hand(held):
    titles = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    found = nearest(titles, {"a": 1, "b": 2, "c": 3})([["c", "a"]])
    assert found.argmax(1).tolist() == [1]  # of those that the session does not have
    assert found[0, [0, 2]].tolist() == [-1, -1]
    whole, warm = (data_module(str(path), None) for path in (held.whole, held.warm))
    (scores,) = popular(warm, whole.catalogue.index)([["i00"]])
    events = pl.read_parquet(held.warm.parent / "events.parquet").filter(pl.col("split") == "train")
    counts = dict(events["item_id"].value_counts().iter_rows())
    assert scores.tolist() == [counts.get(item, 0) for item in whole.catalogue.item_ids]


def test_differences_are_paired_by_seed():
    given = Targets([], [], np.array([0, 0, 1]), np.array([True, False, False]))
    each = {
        "warm": {0: np.array([np.inf, 1.0, 30.0]), 1: np.array([np.inf, 1.0, 30.0])},
        "with_items": {0: np.array([2.0, 1.0, 1.0]), 1: np.array([30.0, 1.0, 30.0])},
        "whole": {0: np.array([1.0, 1.0, 1.0])},
        "nearest titles": {0: np.array([1.0, 30.0, 30.0]), 1: np.array([1.0, 30.0, 30.0])},
    }
    rows = {one["what"]: one for one in told(each, given)}
    assert rows["test, cold targets, with_items, recall@20"]["value"] == 0.5
    assert rows["test, cold targets, with_items minus nearest titles, recall@20"]["value"] == -0.5
    assert rows["test, warm targets, with_items minus warm, recall@20"]["value"] == 0.25
    assert rows["test, warm targets, with_items minus whole, mrr@20"]["value"] == 0
    assert rows["test, warm targets, with_items minus whole, mrr@20"]["note"].endswith("seeds [0]")
    assert "test, cold targets, warm, recall@20" not in rows
