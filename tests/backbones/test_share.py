"""SHARE against the paper's equations, written out for one session with a dense incidence matrix."""

import math

import pytest
import torch
from hooks import shapes_through

from llm4sbr import InputError
from llm4sbr.backbones.share import SHARE, build_window_hypergraph
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]
OPTIONS = [{}, {"layers": 1, "max_window": 4}, {"layers": 3, "max_window": 20}]


@pytest.mark.parametrize("options", OPTIONS)
def test_contract(options):
    assert_backbone(lambda num_items: SHARE(num_items, 16, **options))


def windows(session, max_window):
    """The items of each window, narrow windows first."""
    return [
        set(session[start : start + size])
        for size in range(1, max_window + 1)
        for start in range(len(session) - size + 1)
    ]


@pytest.mark.parametrize("max_window", [2, 3, 9])
def test_every_window_is_a_hyperedge(max_window):
    batch = make_batch([[8, 9, 1], *SESSIONS, [2]], padding=2)
    node, edge, num_edges = build_window_hypergraph(batch.graph.alias, batch.lengths, max_window)
    found = [set() for _ in range(num_edges)]
    for n, e in zip(node.tolist(), edge.tolist(), strict=True):
        assert n not in found[e]
        found[e].add(n)
    expected = []
    for row, length in enumerate(batch.lengths.tolist()):
        expected += windows(batch.graph.alias[row, :length].tolist(), max_window)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))


def strong(**options):
    """A model whose attention is far from uniform, so that nothing hides in a mean."""
    torch.manual_seed(0)
    model = SHARE(9, 8, **options).eval().requires_grad_(False)
    model.embedding.weight.mul_(3)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("key", "query", "context")):
            parameter.mul_(3)
    return model


def layer_norm(layer, x):
    return (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-6) * layer.weight + layer.bias


def interests_by_hand(model, session):
    """The attended session and the last click's node (arXiv:2112.14266, Eq. 1-5)."""
    nodes = sorted(set(session))
    where = {item: row for row, item in enumerate(nodes)}
    edges = windows(session, model.max_window)
    incidence = torch.zeros(len(nodes), len(edges))
    for column, items in enumerate(edges):
        for item in items:
            incidence[where[item], column] = 1
    root = math.sqrt(model.embedding_dim)
    first = torch.stack([model.embedding.weight[item] for item in nodes])
    n = first
    for layer in model.layers:
        fit = (n @ layer.node_key.weight.T) @ layer.context / root
        alpha = incidence * fit.exp().unsqueeze(1)
        alpha = alpha / alpha.sum(0, keepdim=True)
        e = alpha.T @ (n @ layer.node_value.weight.T)
        fit = (n @ layer.node_query.weight.T) @ (e @ layer.edge_key.weight.T).T / root
        beta = incidence * fit.exp()
        beta = beta / beta.sum(1, keepdim=True)
        n = beta @ (e @ layer.edge_value.weight.T) + first
    clicks = [n[where[item]] for item in session]
    query = model.query.weight @ clicks[-1]
    odds = [math.exp(query @ (model.key.weight @ click) / root) for click in clicks]
    h = sum(odd / sum(odds) * (model.value.weight @ click) for odd, click in zip(odds, clicks, strict=True))
    return h, clicks[-1]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("session", SESSIONS)
def test_share_is_the_papers(session, options):
    model = strong(**options)
    batch = make_batch([[8, 9, 1], session, [2]], padding=1)
    h, last = interests_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], h, atol=1e-5)
    assert torch.allclose(interests.short_term[1], last, atol=1e-5)
    x, block = h + last, model.feed_forward
    inner = torch.relu(block[1].weight @ layer_norm(block[0], x) + block[1].bias)
    s = layer_norm(model.norm, x + block[3].weight @ inner + block[3].bias)
    scores = [s @ model.embedding.weight[item] for item in range(1, 10)]
    assert torch.allclose(model(batch)[1], torch.stack(scores), atol=1e-5)


def test_wider_windows_connect_more():
    """The first click reaches the second and third of a session through a window of three."""
    sessions = [[1, 2, 3, 4], [5, 2, 3, 4]]
    for width, reached in ((2, [False, False]), (3, [True, False]), (4, [True, True])):
        model = strong(layers=1, max_window=width)
        batch = make_batch(sessions)
        graph = build_window_hypergraph(batch.graph.alias, batch.lengths, width)
        nodes = model.layers[0](model.embedding(batch.graph.nodes), graph)[batch.graph.alias]
        differs = [not torch.allclose(nodes[0, click], nodes[1, click], atol=1e-5) for click in (2, 3)]
        assert differs == reached


def test_dropout_stands_where_the_authors_have_it():
    model, batch = strong().train(), make_batch([[1, 2, 3], [4]])
    interests = model.encode(batch)
    assert shapes_through(model.dropout, lambda: model.encode(batch)) == [(4, 8), (4, 8), (2, 3), (2, 8)]
    for layer in model.layers:
        assert shapes_through(layer.dropout, lambda: model.encode(batch)) == [(8,), (8,)]
    assert shapes_through(model.feed_forward[-1], lambda: model.merge(interests)) == [(2, 8)]
    assert model.dropout.p == model.layers[1].dropout.p == model.feed_forward[-1].p == 0.3
    assert torch.equal(model.eval()(batch), model(batch))


def test_starts_as_the_authors_code():
    torch.manual_seed(0)
    model = SHARE(500, 100)
    assert model.embedding.weight[0].abs().sum() == 0
    assert (len(model.layers), model.max_window, model.dropout.p) == (2, 2, 0.3)
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= 0.1, name
        if parameter.numel() > 5000:
            assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05), name


@pytest.mark.parametrize(
    ("setting", "value"), [("layers", 0), ("max_window", 1), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        SHARE(9, 8, **{setting: value})
