"""The batch and its graph against a loop over sessions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4sbr.contracts.batch import build_session_graph
from llm4sbr.testing import make_batch


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=7), min_size=1, max_size=6))
def test_graph_is_what_a_loop_would_build(sessions):
    batch = make_batch(sessions, padding=1)
    graph = batch.graph
    edges = set()
    for row, session in enumerate(sessions):
        nodes = graph.alias[row, : len(session)]
        assert graph.nodes[nodes].tolist() == session
        assert len(set(nodes.tolist())) == len(set(session))  # one node per distinct item
        edges |= set(zip(nodes[:-1].tolist(), nodes[1:].tolist(), strict=True))
    assert len(graph.nodes) == sum(len(set(session)) for session in sessions)  # none shared by sessions
    got = list(zip(*graph.edge_index.tolist(), strict=True))
    assert len(got) == len(set(got))
    assert set(got) == edges


def test_padding_mask():
    assert make_batch([[1, 2], [3]]).padding_mask().tolist() == [[True, True], [True, False]]


def test_one_click_sessions_have_no_edges():
    graph = build_session_graph(torch.tensor([[4], [4]]), torch.tensor([1, 1]))
    assert graph.nodes.tolist() == [4, 4]
    assert graph.edge_index.shape == (2, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_survive_a_data_loader(workers):
    batch = make_batch([[1, 2], [3]])
    loader = torch.utils.data.DataLoader([batch], batch_size=None, num_workers=workers)
    assert next(iter(loader)).graph.alias.tolist() == batch.graph.alias.tolist()
