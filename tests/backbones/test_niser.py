"""NISER+ against the paper's equations, written out for one session with dense matrices."""

from itertools import pairwise

import pytest
import torch
from plain import plain_wrapped

from llm4sbr import InputError
from llm4sbr.backbones.niser import NISERPlus
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]


@pytest.mark.parametrize("steps", [1, 2])
def test_contract(steps):
    assert_backbone(lambda num_items: NISERPlus(num_items, 16, steps=steps))


def unit(x):
    return x / x.square().sum(-1, keepdim=True).sqrt()


def propagated(model, session):
    """States of one session's clicks before positions: SR-GNN's cell over unit embeddings."""
    nodes = sorted(set(session))
    where = {item: row for row, item in enumerate(nodes)}
    adjacency = torch.zeros(len(nodes), len(nodes))
    for u, v in pairwise(session):
        adjacency[where[u], where[v]] = 1
    outgoing = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    incoming = (adjacency / adjacency.sum(0, keepdim=True).clamp(min=1)).T
    conv, hidden = model.conv, unit(model.embedding.weight[nodes])
    for _ in range(model.steps):
        a = torch.cat((incoming @ conv.incoming(hidden), outgoing @ conv.outgoing(hidden)), dim=1) + conv.bias
        hidden = conv.cell(a, hidden)
    return [hidden[where[item]] for item in session]


def interests_by_hand(model, session):
    """s_g and v_n of one session (arXiv:1909.04276)."""
    states = propagated(model, session)
    v = [state + model.position.weight[place] for place, state in enumerate(states)]
    s_g = torch.zeros(model.embedding_dim)
    for v_i in v:
        gate = torch.sigmoid(model.attend_last(v[-1]) + model.attend_click.weight @ v_i)
        s_g = s_g + (model.attend_score.weight[0] @ gate) * v_i
    return s_g, v[-1]


@pytest.mark.parametrize(("steps", "readout_bias"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("session", SESSIONS)
def test_niser_is_the_papers(session, steps, readout_bias):
    torch.manual_seed(0)
    model = NISERPlus(9, 6, steps=steps, readout_bias=readout_bias).eval()
    batch = make_batch([[8, 9, 1], session, [2]])
    s_g, v_n = interests_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], s_g, atol=1e-5)
    assert torch.allclose(interests.short_term[1], v_n, atol=1e-5)
    s = model.readout.weight @ torch.cat((s_g, v_n))
    s = unit(s + model.readout.bias if readout_bias else s)
    scores = [16 * unit(model.embedding.weight[item]) @ s for item in range(1, 10)]
    assert torch.allclose(model(batch)[1], torch.stack(scores), atol=1e-5)


def test_lengths_of_items_and_sessions_change_no_score():
    torch.manual_seed(0)
    model = NISERPlus(9, 6).eval()
    batch = make_batch([[1, 2, 3], [4]])
    interests = model.encode(batch)
    session = model.merge(interests)
    scores = model.score(session, interests)
    assert scores.abs().max() <= 16 + 1e-4
    assert torch.allclose(model.score(7 * session, interests), scores, atol=1e-5)
    assert torch.allclose(model.item_embeddings().norm(dim=1), torch.ones(9), atol=1e-6)
    model.embedding.weight.data[5] *= 100  # a popular item's embedding grows
    assert torch.allclose(model(batch), scores, atol=1e-5)
    model.scale = 4.0
    assert torch.allclose(model(batch), scores / 4, atol=1e-5)


def test_the_wrappers_fused_vector_is_normalised_too():
    torch.manual_seed(0)
    wrapper = plain_wrapped(NISERPlus(9, 6, scale=10.0), text_dim=8).eval()
    batch = make_batch([[1, 2, 3], [4]])._replace(views=torch.randn(2, 2, 8))
    fused = wrapper.enhance(batch).session
    expected = 10 * unit(fused) @ unit(wrapper.backbone.embedding.weight[1:]).T
    assert torch.allclose(wrapper(batch), expected, atol=1e-5)


def test_dropout_falls_on_items_before_they_are_normalised():
    torch.manual_seed(0)
    model = NISERPlus(9, 64, dropout=0.5)
    seen = []
    model.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.encode(make_batch([[1, 2, 3, 4]]))
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7
    assert torch.allclose(seen[0].norm(dim=1), torch.ones(4), atol=1e-5)
    model.eval().encode(make_batch([[1, 2, 3, 4]]))
    assert (seen[1] == 0).sum() == 0


def test_starts_with_a_padding_row_of_zeros():
    model = NISERPlus(9, 25)
    assert model.embedding.weight[0].abs().sum() == 0
    assert 0.1 < model.position.weight.abs().max() <= 0.2


@pytest.mark.parametrize(
    ("setting", "value"), [("scale", 0.0), ("scale", float("inf")), ("dropout", 1.0), ("max_length", 0)]
)
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        NISERPlus(9, 4, **{setting: value})


def test_a_longer_session_than_positions_is_told():
    model = NISERPlus(9, 4, max_length=2)
    model(make_batch([[1, 2]]))
    with pytest.raises(InputError, match="max_length"):
        model(make_batch([[1, 2, 3]]))
