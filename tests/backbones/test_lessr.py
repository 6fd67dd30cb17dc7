"""LESSR keeps the contract and is the paper's, with lists of neighbours in place of packed sequences."""

from itertools import pairwise

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.backbones.lessr import LESSR
from llm4sbr.backbones.lessr_graph import EdgeOrderConv, FeatureNorm, build_lessr_graph
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [1, 9, 8, 2, 9, 3, 1, 7, 5, 6, 9, 2]]


@pytest.mark.parametrize("options", [{}, {"num_layers": 1}, {"num_layers": 4}, {"max_norm": None}])
def test_contract(options):
    assert_backbone(lambda num_items: LESSR(num_items, 16, **options))


def messages(graph):
    """For each receiver the senders of its messages in order, read off the packing."""
    sizes = graph.batch_sizes.tolist()
    assert sizes == sorted(sizes, reverse=True)
    heard = {node: [] for node in graph.receivers.tolist()}
    senders = iter(graph.senders.tolist())
    for size in sizes:
        for node in graph.receivers[:size].tolist():
            heard[node].append(next(senders))
    assert next(senders, None) is None
    return heard


@pytest.mark.parametrize("padding", [0, 3])
def test_graph_holds_each_session_without_loss(padding):
    batch = make_batch(SESSIONS, padding=padding)
    graph = build_lessr_graph(batch)
    heard, shortcuts = messages(graph), {tuple(pair) for pair in graph.shortcuts.T.tolist()}
    expected_heard, expected_shortcuts = {}, set()
    for row, session in enumerate(SESSIONS):
        own = [node for node in range(len(graph.nodes)) if graph.session[node] == row]
        where = {int(graph.nodes[node]): node for node in own}
        assert sorted(where) == sorted(set(session))
        assert len(own) == len(where)
        assert graph.last[row] == where[session[-1]]
        for u, v in pairwise(session):
            expected_heard.setdefault(where[v], []).append(where[u])
        for i in range(len(session)):
            for j in range(i, len(session)):
                expected_shortcuts.add((where[session[i]], where[session[j]]))
    assert heard == expected_heard
    assert shortcuts == expected_shortcuts
    assert graph.shortcuts.size(1) == len(shortcuts)  # no pair twice


def test_one_click_sessions_hear_nothing():
    graph = build_lessr_graph(make_batch([[4], [2]]))
    assert len(graph.senders) == len(graph.receivers) == len(graph.batch_sizes) == 0
    assert graph.shortcuts.tolist() == [[0, 1], [0, 1]]


def norm_by_hand(norm, x):
    return (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias


def prelu_by_hand(activation, x):
    return torch.where(x > 0, x, activation.weight * x)


def eopa_by_hand(layer, x, session):
    """x holds a vector for each item of the session."""
    x = {item: norm_by_hand(layer.norm, vector) for item, vector in x.items()}
    new = {}
    for item in x:
        state = torch.zeros(layer.gru.input_size)
        for u, v in pairwise(session):  # in click order, repeats included
            if v != item:
                continue
            from_x = (layer.gru.weight_ih_l0 @ x[u] + layer.gru.bias_ih_l0).chunk(3)
            from_h = (layer.gru.weight_hh_l0 @ state + layer.gru.bias_hh_l0).chunk(3)
            reset, update = (torch.sigmoid(from_x[gate] + from_h[gate]) for gate in (0, 1))
            candidate = torch.tanh(from_x[2] + reset * from_h[2])
            state = (1 - update) * candidate + update * state
        w_upd = torch.cat((layer.update_self.weight, layer.update_heard.weight), dim=1)
        new[item] = prelu_by_hand(layer.activation, w_upd @ torch.cat((x[item], state)))
    return new


def sgat_by_hand(layer, x, session):
    x = {item: norm_by_hand(layer.norm, vector) for item, vector in x.items()}
    new = {}
    for item in x:
        last = max(place for place, clicked in enumerate(session) if clicked == item)
        sources = sorted(set(session[: last + 1]))
        logits = []
        for source in sources:
            inner = layer.receiver.weight @ x[item] + layer.sender.weight @ x[source] + layer.sender.bias
            logits.append(layer.attend_score.weight[0] @ torch.sigmoid(inner))
        alpha = torch.softmax(torch.stack(logits), dim=0)
        attended = sum(a * (layer.value.weight @ x[source]) for a, source in zip(alpha, sources, strict=True))
        new[item] = prelu_by_hand(layer.activation, attended)
    return new


def lessr_by_hand(model, session):
    """Scores of one session, with W_h, its normalisation and the concatenation whole."""
    table = model.embedding.weight.detach()
    if model.max_norm is not None:
        norms = torch.tensor([float(row.square().sum().sqrt()) for row in table]).unsqueeze(1)
        table = torch.where(norms > model.max_norm, table / norms * model.max_norm, table)
    x = {item: table[item] for item in session}
    for number, layer in enumerate(model.layers):
        new = (sgat_by_hand if number % 2 else eopa_by_hand)(layer, x, session)
        x = {item: torch.cat((x[item], new[item])) for item in x}
    pool, last = model.pool, x[session[-1]]
    normed = {item: norm_by_hand(pool.norm, vector) for item, vector in x.items()}
    logits = []
    for vector in normed.values():
        asked = pool.attend_last.weight @ normed[session[-1]] + pool.attend_last.bias
        logits.append(pool.attend_score.weight[0] @ torch.sigmoid(pool.attend_node.weight @ vector + asked))
    beta = torch.softmax(torch.stack(logits), dim=0)
    pooled = sum(b * vector for b, vector in zip(beta, normed.values(), strict=True))
    s_g = prelu_by_hand(pool.activation, pool.output.weight @ pooled)
    (norm_g, _, w_g), (norm_l, _, w_l) = model.readout_global, model.readout_last
    w_h = torch.cat((w_l.weight, w_g.weight), dim=1)
    both = torch.cat((norm_by_hand(norm_l, last), norm_by_hand(norm_g, s_g)))
    return table[1:] @ (w_h @ both)


def lived(**options):
    """A model in evaluation whose normalisations and activations are not those of its first day."""
    torch.manual_seed(0)
    model = LESSR(9, 6, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, FeatureNorm):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.3, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(std=0.3)
            elif isinstance(module, torch.nn.PReLU):
                module.weight.uniform_(-0.5, 0.5)
            elif isinstance(module, torch.nn.Linear):
                module.weight.mul_(2)
        model.embedding.weight[4].mul_(0.1)  # shorter than the largest norm
    return model


@pytest.mark.parametrize("options", [{}, {"num_layers": 4}, {"num_layers": 1, "max_norm": None}])
@pytest.mark.parametrize("session", SESSIONS)
def test_lessr_is_the_papers(session, options):
    model = lived(**options)
    expected = lessr_by_hand(model, session)
    batch = make_batch([[8, 9, 1], session, [2]], padding=2)
    assert torch.allclose(model(batch)[1], expected, atol=1e-5)


def test_the_order_of_transitions_counts():
    """Two sessions of the same SR-GNN graph and the same ends, told apart by edge order alone."""
    first, second = [1, 2, 3, 2, 4, 2, 5], [1, 2, 4, 2, 3, 2, 5]
    one, other = make_batch([first]), make_batch([second])
    assert torch.equal(one.graph.edge_index, other.graph.edge_index)
    model = lived(num_layers=1)
    assert not torch.allclose(model(one), model(other), atol=1e-3)


def test_item_vectors_are_cut_to_the_largest_norm():
    torch.manual_seed(0)
    model = LESSR(9, 6, max_norm=0.5)
    model.embedding.weight.data.mul_(5)
    assert model.item_embeddings().norm(dim=1).max() <= 0.5 + 1e-6
    assert LESSR(9, 6, max_norm=None).item_embeddings().norm(dim=1).max() > 1


def test_what_is_learned_begins_as_long_as_the_cut():
    """What titles add is cut with it, later. Seen to fail with vectors cut at their look-up alone."""
    assert LESSR(9, 100).embedding.weight.norm(dim=1).max() <= 1 + 1e-6
    assert LESSR(9, 100, max_norm=None).embedding.weight.norm(dim=1).max() > 5


def test_two_readings_before_one_backward():
    """Cutting in place must not spoil what autograd keeps."""
    torch.manual_seed(0)
    model, batch = LESSR(9, 6), make_batch(SESSIONS)
    (model(batch).sum() + model(batch).sum()).backward()
    assert model.embedding.weight.grad.isfinite().all()


def test_training_normalises_by_the_batch():
    torch.manual_seed(0)
    norm = FeatureNorm(3)
    features = torch.randn(50, 3) * 4 + 2
    assert torch.allclose(norm(features).mean(0), torch.zeros(3), atol=1e-5)
    assert norm.running_mean.abs().min() > 0


def test_a_batch_of_one_click_trains():
    torch.manual_seed(0)
    model = LESSR(9, 6).train()
    before = [module.running_mean.clone() for module in model.modules() if isinstance(module, FeatureNorm)]
    model(make_batch([[4]])).sum().backward()
    after = [module.running_mean for module in model.modules() if isinstance(module, FeatureNorm)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert model.embedding.weight.grad.isfinite().all()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    conv, graph = EdgeOrderConv(6, 4, dropout=0.5), build_lessr_graph(make_batch(SESSIONS))
    features = torch.randn(len(graph.nodes), 6)
    assert not torch.allclose(conv(features, graph), conv(features, graph))
    conv.eval()
    assert torch.equal(conv(features, graph), conv(features, graph))


@pytest.mark.parametrize(("option", "value"), [("num_layers", 0), ("dropout", 1.0), ("max_norm", 0.0)])
def test_settings_are_checked(option, value):
    with pytest.raises(InputError, match=option):
        LESSR(10, 4, **{option: value})
