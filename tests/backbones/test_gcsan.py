"""GC-SAN keeps the contract and is the paper's, written out with dense matrices."""

from itertools import pairwise

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.backbones.gcsan import GCSAN
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [1, 9, 8, 2, 9, 3, 1, 7, 5, 6, 9, 2]]


@pytest.mark.parametrize("options", [{}, {"num_blocks": 3}, {"steps": 2, "weight": 0.3}])
def test_contract(options):
    assert_backbone(lambda num_items: GCSAN(num_items, 16, **options))


def nodes_by_hand(model, session):
    """States of the session's clicks after the gated graph layer (Eq. 2-6)."""
    items = sorted(set(session))
    successors = {item: sorted({v for u, v in pairwise(session) if u == item}) for item in items}
    predecessors = {item: sorted({u for u, v in pairwise(session) if v == item}) for item in items}
    hidden = {item: model.embedding.weight[item] for item in items}
    conv, cell = model.conv, model.conv.cell
    for _ in range(model.steps):
        new = {}
        for item in items:
            a_in = sum(conv.incoming(hidden[u]) for u in predecessors[item]) / max(len(predecessors[item]), 1)
            a_out = sum(conv.outgoing(hidden[v]) for v in successors[item]) / max(len(successors[item]), 1)
            zero = torch.zeros(model.embedding_dim)
            a = torch.cat((zero + a_in, zero + a_out)) + conv.bias
            from_a = (cell.weight_ih @ a + cell.bias_ih).chunk(3)
            from_h = (cell.weight_hh @ hidden[item] + cell.bias_hh).chunk(3)
            reset, update = (torch.sigmoid(from_a[gate] + from_h[gate]) for gate in (0, 1))
            candidate = torch.tanh(from_a[2] + reset * from_h[2])
            new[item] = (1 - update) * candidate + update * hidden[item]
        hidden = new
    return torch.stack([hidden[item] for item in session])


def gcsan_by_hand(model, session):
    """GC-SAN of one session: long term, short term and scores."""
    clicks = nodes_by_hand(model, session)
    states = clicks
    for block in model.blocks:
        query, key, value = (states @ layer.weight.T for layer in (block.query, block.key, block.value))
        rows = []
        for i in range(len(session)):
            logits = torch.stack([query[i] @ key[j] for j in range(len(session))])
            weights = torch.exp(logits / model.embedding_dim**0.5)
            weights = weights / weights.sum()
            rows.append(sum(weights[j] * value[j] for j in range(len(session))))
        attended = torch.stack(rows)
        first, second = block.feed_forward[0], block.feed_forward[2]
        inner = (attended @ first.weight.T + first.bias).clamp(min=0)
        states = inner @ second.weight.T + second.bias + attended
    vector = model.weight * states[-1] + (1 - model.weight) * clicks[-1]
    return states[-1], clicks[-1], model.embedding.weight[1:] @ vector


@pytest.mark.parametrize("options", [{}, {"num_blocks": 3, "steps": 2, "weight": 0.8}])
@pytest.mark.parametrize("session", SESSIONS)
def test_gcsan_is_the_papers(session, options):
    torch.manual_seed(0)
    model = GCSAN(9, 6, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # attention that is far from the mean of all clicks
            parameter.mul_(2)
    batch = make_batch([[8, 9, 1], session, [2]], padding=2)
    long_term, short_term, scores = gcsan_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], long_term, atol=1e-5)
    assert torch.allclose(interests.short_term[1], short_term, atol=1e-5)
    assert torch.allclose(model(batch)[1], scores, atol=1e-5)


def test_weight_shares_the_session_vector():
    batch = make_batch([[1, 2, 3], [4]])
    torch.manual_seed(0)
    attention_only, click_only = GCSAN(9, 6, weight=1.0).eval(), GCSAN(9, 6, weight=0.0).eval()
    interests = attention_only.encode(batch)
    assert torch.equal(attention_only.merge(interests), interests.long_term)
    assert torch.equal(click_only.merge(interests), interests.short_term)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, batch = GCSAN(9, 6, dropout=0.5), make_batch([[1, 2, 3, 4, 5, 6]])
    assert not torch.allclose(model(batch), model(batch))
    assert torch.equal(model.encode(batch).short_term, model.encode(batch).short_term)
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_padding_row_is_zero():
    assert GCSAN(9, 6).embedding.weight[0].eq(0).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("weight", 1.2), ("weight", -0.1), ("num_blocks", 0), ("steps", 0), ("dropout", 1.0)],
)
def test_settings_are_checked(option, value):
    with pytest.raises(InputError, match=option):
        GCSAN(10, 4, **{option: value})
