"""MSGIFSR against the paper's equations, written out for one session: units are tuples, edges are sets."""

import math
from itertools import pairwise

import pytest
import torch
from hooks import shapes_through

from llm4sbr import InputError
from llm4sbr.backbones.msgifsr import MSGIFSR
from llm4sbr.backbones.msgifsr_graph import build_intent_graph
from llm4sbr.nn.losses import catalogue_cross_entropy
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [2, 6], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]
OPTIONS = [{"heads": 2}, {"levels": 1, "heads": 1}, {"levels": 2, "layers": 2, "heads": 3, "scale": 5.0}]


@pytest.mark.parametrize("options", [{}, *OPTIONS, {"levels": 6}])
def test_contract(options):
    assert_backbone(lambda num_items: MSGIFSR(num_items, 16, **options))


def runs(session, size):
    """Runs of `size` clicks in order; a shorter session repeats its last click."""
    if len(session) < size:
        return [tuple(session + session[-1:] * (size - len(session)))]
    return [tuple(session[start : start + size]) for start in range(len(session) - size + 1)]


def edges_by_hand(session, levels):
    """Edges by type, ``(level of the source, level of the target)``; a unit is a tuple of items."""
    edges = {}
    for level in range(1, levels + 1):
        edges[level, level] = set(pairwise(runs(session, level)))
    for level in range(2, levels + 1):
        edges[1, level], edges[level, 1] = set(), set()
        for start in range(len(session) - level):
            edges[1, level].add(((session[start],), tuple(session[start + 1 : start + 1 + level])))
            edges[level, 1].add((tuple(session[start : start + level]), (session[start + level],)))
    return edges


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_the_intent_graph(levels):
    sessions = [[8, 9, 1], *SESSIONS, [2]]
    batch = make_batch(sessions, padding=2)
    graph = build_intent_graph(batch.graph, batch.lengths, levels)
    units = [tuple(row) for items in graph.items for row in items.tolist()]
    owner = graph.session.tolist()
    assert [len(unit) - 1 for unit in units] == graph.level.tolist()
    expected_units, expected_edges = [], []
    for number, session in enumerate(sessions):
        for level in range(1, levels + 1):
            expected_units += [(number, unit) for unit in set(runs(session, level))]
            assert units[graph.last[number, level - 1]] == runs(session, level)[-1]
            assert owner[graph.last[number, level - 1]] == number
        for pairs in edges_by_hand(session, levels).values():
            expected_edges += [(number, *pair) for pair in pairs]
    assert sorted(zip(owner, units, strict=True)) == sorted(expected_units)
    found = []
    for u, v in graph.edge_index.T.tolist():
        assert owner[u] == owner[v]
        found.append((owner[u], units[u], units[v]))
    assert sorted(found) == sorted(expected_edges)


def strong(num_items=10, **options):
    """A model whose attention and gate are far from uniform, so that nothing hides in a mean."""
    torch.manual_seed(0)
    model = MSGIFSR(num_items, 6, **options).eval().requires_grad_(False)
    model.embedding.weight[4].mul_(5)  # longer than one
    for name, parameter in model.named_parameters():
        if "embedding" not in name and "mixture" not in name:
            parameter.mul_(2)
    if model.mixture is not None:
        model.mixture.normal_()
    return model


def unit(vector):
    return vector / vector.square().sum().sqrt()


def gru_by_hand(gru, inputs):
    state = torch.zeros(gru.hidden_size)
    for x in inputs:
        from_x = (gru.weight_ih_l0 @ x + gru.bias_ih_l0).chunk(3)
        from_h = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        reset, update = (torch.sigmoid(from_x[gate] + from_h[gate]) for gate in (0, 1))
        state = (1 - update) * torch.tanh(from_x[2] + reset * from_h[2]) + update * state
    return state


def attention_by_hand(x, target, pairs, parameters):
    """One type's r of one unit, ``(H, d)``: attention to its sources, itself and a bias."""
    weight, (a_source, a_target), bias = parameters  # (d, H, d), (H, d) each, (H, d)
    sources = [source for source, end in pairs if end == target]
    heads = []
    for head in range(weight.size(1)):
        w = weight[:, head].T
        odds = []
        for source in sources:
            fit = a_source[head] @ (w @ x[source]) + a_target[head] @ (w @ x[target])
            odds.append(math.exp(fit if fit > 0 else 0.2 * fit))
        heard = sum(odd / sum(odds) * (w @ x[source]) for odd, source in zip(odds, sources, strict=True))
        heads.append(heard + x[target] + bias[head])
    return torch.stack(heads)


def conv_by_hand(layer, x, session, levels):
    edges, new = edges_by_hand(session, levels), {}
    for target in x:
        level, total = len(target), 0
        for direction in range(2):
            for (low, high), pairs in edges.items():
                if direction:
                    low, high, pairs = high, low, {(v, u) for u, v in pairs}
                if high != level:
                    continue
                kind = level - 1 if low == high else levels
                parameters = [values[direction, kind] for values in (layer.weight, layer.attend, layer.bias)]
                total = total + attention_by_hand(x, target, pairs, parameters)
        peers = [vector for other, vector in x.items() if len(other) == level]
        new[target] = total.max(0).values + sum(peers) / len(peers)
    return new


def intents_by_hand(model, session):
    """Local and global vector of each level (arXiv:2112.13197)."""
    x = {}
    for level in range(1, model.levels + 1):
        for run in runs(session, level):
            vectors = []
            for item in run:
                vector = model.embedding.weight[item]
                vectors.append(unit(vector) if vector.norm() > 1 else vector)
            mean = sum(vectors) / level
            x[run] = unit(
                mean if level == 1 else 0.5 * mean + 0.5 * gru_by_hand(model.order[level - 2], vectors)
            )
    for layer in model.layers:
        x = conv_by_hand(layer, x, session, model.levels)
    x = {run: unit(vector) for run, vector in x.items()}
    intents = []
    for level in range(model.levels):
        last, odds = x[runs(session, level + 1)[-1]], []
        for vector in x.values():
            u, v = model.attend_unit[level], model.attend_last[level]
            inner = torch.sigmoid(u.weight @ vector + u.bias + v.weight @ last)
            odds.append(math.exp(model.attend_score[level].weight[0] @ inner))
        overall = sum(odd / sum(odds) * vector for odd, vector in zip(odds, x.values(), strict=True))
        intents.append((last, overall))
    return intents


def chances_by_hand(model, session, sessions):
    """P(v) of every item, from a session vector for each level."""
    first, _, second = model.gate
    weights = [1.0] if model.mixture is None else [math.exp(value) for value in model.mixture]
    total = [0.0] * model.num_items
    for weight, s in zip(weights, sessions, strict=True):
        gate = [math.exp(v) for v in second.weight @ torch.relu(first.weight @ unit(s) + first.bias)]
        odds = [
            math.exp(model.scale * (unit(s) @ unit(model.embedding.weight[item])))
            for item in range(1, model.num_items + 1)
        ]
        clicked = sum(odds[item - 1] for item in set(session))
        for item in range(1, model.num_items + 1):
            share = (
                gate[0] * odds[item - 1] / clicked
                if item in session
                else gate[1] * odds[item - 1] / (sum(odds) - clicked)
            )
            total[item - 1] += weight / sum(weights) * share / sum(gate)
    return torch.tensor(total)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("session", SESSIONS)
def test_msgifsr_is_the_papers(session, options):
    model = strong(**options)
    batch = make_batch([[8, 9, 1], session, [2]], padding=1)
    intents = intents_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.short_term[1], intents[0][0], atol=1e-5)
    assert torch.allclose(interests.long_term[1], intents[0][1], atol=1e-5)
    sessions = [model.readout[level].weight @ torch.cat(pair) for level, pair in enumerate(intents)]
    expected = chances_by_hand(model, session, sessions)
    assert torch.allclose(model(batch)[1].exp(), expected, atol=1e-5)
    assert torch.allclose(model(batch)[1], expected.log(), atol=1e-3)


@pytest.mark.parametrize("session", [[3], [4, 5, 4, 6, 5, 4]])
def test_a_fused_vector_takes_the_place_of_the_finest_intent(session):
    model = strong(heads=2)
    batch = make_batch([session, [1, 2]])
    fused = torch.randn(2, 6)
    intents = intents_by_hand(model, session)
    sessions = [fused[0]]
    sessions += [model.readout[level].weight @ torch.cat(intents[level]) for level in (1, 2)]
    scores = model.score(fused, model.encode(batch))
    assert torch.allclose(scores[0].exp(), chances_by_hand(model, session, sessions), atol=1e-5)


def test_merge_reads_the_two_interests_alone():
    model = strong()
    interests = model.encode(make_batch([[1, 2, 3], [4]]))
    assert torch.equal(model.merge(interests._replace(context=None)), model.merge(interests))


@pytest.mark.parametrize("options", OPTIONS)
def test_scores_are_log_probabilities(options):
    model = strong(**options)
    batch = make_batch([[1, 2, 3], [4], [5, 5], [9, 8, 7, 6, 5, 4, 3, 2]], target=[9, 4, 6, 1])
    scores = model(batch)
    assert torch.allclose(scores.exp().sum(1), torch.ones(4), atol=1e-5)
    chosen = torch.stack([scores[0, 8], scores[1, 3], scores[2, 5], scores[3, 0]])
    assert torch.allclose(catalogue_cross_entropy(scores, batch.target), -chosen.mean(), atol=1e-5)


def test_a_session_of_the_whole_catalogue_is_ranked():
    model = strong(num_items=4).requires_grad_()
    scores = model(make_batch([[1, 2, 3, 4], [4, 3, 2, 1, 1]]))
    assert torch.allclose(scores.exp().sum(1), torch.ones(2), atol=1e-5)
    scores.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_gate_splits_repeats_from_news():
    model = strong()
    model.gate[0].weight.zero_()
    model.gate[0].bias.fill_(1)
    model.gate[2].weight.copy_(torch.tensor([[0.5] * 6, [0.0] * 6]))  # e^3 to 1 for a repeat
    chances = model(make_batch([[1, 2, 1], [5]])).exp()
    repeat = math.exp(3) / (math.exp(3) + 1)
    assert chances[0, :2].sum().item() == pytest.approx(repeat, abs=1e-5)
    assert chances[1, 4].item() == pytest.approx(repeat, abs=1e-5)


def test_dropout_stands_where_the_authors_have_it():
    model, batch = strong(heads=2).train(), make_batch([[1, 2, 3, 1], [4]])
    graph = build_intent_graph(batch.graph, batch.lengths, 3)
    units = [(len(items), level, 6) for level, items in enumerate(graph.items, start=1)]
    assert shapes_through(model.dropout, lambda: model.encode(batch)) == units
    (count, *_), (_, edges) = graph.level.shape, graph.edge_index.shape
    along = [(count, 6), (edges, 2)]
    assert shapes_through(model.layers[0].dropout, lambda: model.encode(batch)) == 2 * along
    assert torch.equal(model.eval()(batch), model(batch))


def test_starts_as_the_authors_code():
    torch.manual_seed(0)
    model = MSGIFSR(500, 100)
    assert model.embedding.weight[0].abs().sum() == 0
    assert model.mixture.tolist() == [1, 0, 0]
    assert (model.levels, len(model.layers), model.layers[0].heads, model.scale) == (3, 1, 8, 12.0)
    assert model.dropout.p == model.layers[0].dropout.p == 0.1
    for name, parameter in model.named_parameters():
        if name == "mixture":
            continue
        assert parameter.abs().max() <= 0.1, name
        if parameter.numel() > 5000:
            assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05), name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("levels", 0),
        ("layers", 0),
        ("heads", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("scale", 0.0),
        ("scale", math.inf),
    ],
)
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        MSGIFSR(9, 8, **{setting: value})
