from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from llm4sbr.contracts.examples import Examples
from llm4sbr.datamodules.dataset import SessionDataset, expand, identity, keep_latest

SESSIONS = [[5, 6, 5, 7], [8], [9, 9], [1, 2, 3, 4, 5, 6]]


def make(mode: str, sessions: list[list[int]] = SESSIONS) -> Examples:
    clicks = np.array([item for session in sessions for item in session], dtype=np.int64)
    lengths = np.array([len(session) for session in sessions], dtype=np.int64)
    return expand(clicks, lengths, [f"s{n}" for n in range(len(sessions))], mode)  # type: ignore[arg-type]


def by_hand(mode: str, sessions: list[list[int]] = SESSIONS) -> list[tuple[tuple[int, ...], int, str]]:
    rows = []
    for number, session in enumerate(sessions):
        if mode == "predict":
            rows.append((tuple(session), 0, f"s{number}"))
            continue
        cuts = range(1 if mode == "prefixes" else max(len(session) - 1, 1), len(session))
        rows += [(tuple(session[:cut]), session[cut], f"s{number}") for cut in cuts]
    return rows


@pytest.mark.parametrize("mode", ["prefixes", "last", "predict"])
def test_expansion_matches_a_loop(mode: str) -> None:
    examples = make(mode)
    ids = [examples.session_id(row) for row in range(len(examples))]
    assert list(zip(examples.prefixes(), examples.target.tolist(), ids, strict=True)) == by_hand(mode)


@pytest.mark.parametrize("mode", ["prefixes", "last", "predict"])
def test_expansion_of_nothing(mode: str) -> None:
    assert len(make(mode, [])) == 0
    assert len(make(mode, [[3]])) == (mode == "predict")


def test_the_latest_clicks_are_kept() -> None:
    examples = keep_latest(make("last"), 2)
    assert examples.prefixes() == [(6, 5), (9,), (4, 5)]
    assert examples.target.tolist() == [7, 9, 6]


def test_a_batch_equals_a_loop_over_sessions() -> None:
    dice = np.random.default_rng(0)
    sessions = [dice.integers(1, 20, dice.integers(1, 12)).tolist() for _ in range(50)]
    examples = replace(make("prefixes", sessions), first_index=1000)
    indices = dice.permutation(len(examples))[:64].tolist()
    batch = SessionDataset(examples).__getitems__(indices)
    prefixes = [examples.prefix(index) for index in indices]
    width = max(map(len, prefixes))
    assert batch.item_ids.tolist() == [[*prefix, *[0] * (width - len(prefix))] for prefix in prefixes]
    assert batch.lengths.tolist() == list(map(len, prefixes))
    assert batch.target.tolist() == [int(examples.target[index]) for index in indices]
    assert batch.example_index.tolist() == [1000 + index for index in indices]
    assert batch.views is None
    assert all(part.dtype == torch.long for part in batch[:4])


def test_the_graph_equals_a_loop_over_sessions() -> None:
    dice = np.random.default_rng(1)
    sessions = [dice.integers(1, 6, dice.integers(2, 12)).tolist() for _ in range(30)]
    batch = SessionDataset(make("last", sessions)).__getitems__(range(30))
    graph = batch.graph
    assert graph is not None
    nodes = graph.nodes.tolist()
    found = {(int(u), int(v)) for u, v in graph.edge_index.T}
    expected, used = set(), []
    for row, length in enumerate(batch.lengths.tolist()):
        prefix, alias = batch.item_ids[row, :length].tolist(), graph.alias[row, :length].tolist()
        assert [nodes[node] for node in alias] == prefix
        assert len(set(alias)) == len(set(prefix))
        used += sorted(set(alias))
        expected |= {(alias[step], alias[step + 1]) for step in range(length - 1)}
    assert found == expected
    assert len(found) == graph.edge_index.size(1)
    assert sorted(used) == list(range(len(nodes)))  # no node is shared between sessions


def test_a_session_of_one_click_and_of_one_repeated_item() -> None:
    batch = SessionDataset(make("predict", [[4], [4, 4, 4]])).__getitems__([0, 1])
    assert batch.graph is not None
    assert batch.graph.nodes.tolist() == [4, 4]
    assert batch.graph.edge_index.tolist() == [[1], [1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_batches(workers: int) -> None:
    dataset = SessionDataset(make("prefixes"))
    loader: DataLoader[object] = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=identity)  # type: ignore[arg-type]
    batches = list(loader)
    assert [batch.lengths.tolist() for batch in batches] == [[1, 2, 3, 1], [1, 2, 3, 4], [5]]
    assert dataset[0].item_ids.tolist() == [[5]]


def test_data_set_and_collate_survive_pickling() -> None:
    dataset, collate = pickle.loads(pickle.dumps((SessionDataset(make("last"), False), identity)))
    assert len(dataset) == 3
    assert collate is identity
