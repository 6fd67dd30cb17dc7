"""TAGNN keeps the contract and is the paper's, with one session vector per candidate."""

from itertools import pairwise

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.backbones.srgnn import SRGNN
from llm4sbr.backbones.tagnn import TAGNN
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [1, 9, 8, 2, 9, 3, 1, 7, 5, 6, 9, 2]]


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"chunk_size": 4}])
def test_contract(options):
    assert_backbone(lambda num_items: TAGNN(num_items, 16, **options))


def clicks_by_hand(model, session):
    """States of the session's clicks after the gated graph layer, with dense matrices (Eq. 1-5)."""
    items = sorted(set(session))
    where = {item: row for row, item in enumerate(items)}
    adjacency = torch.zeros(len(items), len(items))
    for u, v in pairwise(session):
        adjacency[where[u], where[v]] = 1
    outgoing = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    incoming = (adjacency / adjacency.sum(0, keepdim=True).clamp(min=1)).T
    conv, hidden = model.conv, model.embedding.weight[items]
    for _ in range(model.steps):
        heard = torch.cat((incoming @ conv.incoming(hidden), outgoing @ conv.outgoing(hidden)), dim=1)
        from_a = ((heard + conv.bias) @ conv.cell.weight_ih.T + conv.cell.bias_ih).chunk(3, dim=1)
        from_h = (hidden @ conv.cell.weight_hh.T + conv.cell.bias_hh).chunk(3, dim=1)
        reset, update = (torch.sigmoid(from_a[gate] + from_h[gate]) for gate in (0, 1))
        candidate = torch.tanh(from_a[2] + reset * from_h[2])
        hidden = (1 - update) * candidate + update * hidden
    return hidden[[where[item] for item in session]]


def tagnn_by_hand(model, session):
    """Scores of one session: W_3 as one matrix, and a vector s_t for every candidate (Eq. 6-12)."""
    clicks = clicks_by_hand(model, session)
    local = clicks[-1]
    whole = torch.zeros_like(local)
    for click in clicks:
        gate = torch.sigmoid(model.attend_last(local) + model.attend_click(click))
        whole = whole + (model.attend_score.weight[0] @ gate) * click
    w_global, w_local = model.readout.weight.chunk(2, dim=1)
    w_3 = torch.cat((model.target_readout.weight, w_local, w_global), dim=1)  # for [s_t ; local ; global]
    scores = []
    for candidate in model.embedding.weight[1:]:
        affinity = torch.stack([torch.exp(candidate @ model.target_attention.weight @ v) for v in clicks])
        beta = affinity / affinity.sum()
        s_target = sum(b * v for b, v in zip(beta, clicks, strict=True))
        scores.append(candidate @ (w_3 @ torch.cat((s_target, local, whole))))
    return torch.stack(scores)


def sharpened(**options):
    """A model whose attention is far from uniform."""
    torch.manual_seed(0)
    model = TAGNN(9, 6, **options)
    with torch.no_grad():
        model.target_attention.weight.mul_(10)
        model.embedding.weight.mul_(2)
    return model


@pytest.mark.parametrize("options", [{}, {"steps": 2, "chunk_size": 2}])
@pytest.mark.parametrize("session", SESSIONS)
def test_tagnn_is_the_papers(session, options):
    model = sharpened(**options)
    batch = make_batch([[8, 9, 1], session, [2]], padding=2)
    assert torch.allclose(model(batch)[1], tagnn_by_hand(model, session), atol=1e-5)


def test_interests_are_those_of_srgnn():
    model = sharpened()
    twin = SRGNN(9, 6)
    twin.load_state_dict(model.state_dict(), strict=False)
    batch = make_batch(SESSIONS)
    got, expected = model.encode(batch), twin.encode(batch)
    assert torch.allclose(got.long_term, expected.long_term, atol=1e-6)
    assert torch.allclose(got.short_term, expected.short_term, atol=1e-6)
    assert torch.allclose(model.merge(got), twin.merge(expected), atol=1e-6)


def test_chunks_change_no_score():
    """Nor any gradient; 5 does not divide 9."""
    batch, results = make_batch(SESSIONS), []
    for chunk_size in (1, 5, 1000):
        model = sharpened(chunk_size=chunk_size)
        scores = model(batch)
        scores.square().sum().backward()
        results.append((scores, model.target_attention.weight.grad, model.embedding.weight.grad))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            assert torch.allclose(got, expected, atol=1e-4)


def test_large_attention_stays_finite():
    model = sharpened()
    with torch.no_grad():
        model.target_attention.weight.mul_(1000)
    scores = model(make_batch(SESSIONS))
    scores.sum().backward()
    assert scores.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_fused_vector_changes_its_own_part_only():
    """The wrapper's vector in place of `merge`'s: the target's part stays."""
    model, batch = sharpened(), make_batch(SESSIONS)
    interests, fused = model.encode(batch), torch.randn(len(SESSIONS), 6)
    items, merged = model.item_embeddings(), model.merge(interests)
    target = model.score(merged, interests) - merged @ items.T
    assert torch.allclose(model.score(fused, interests), fused @ items.T + target, atol=1e-5)
    assert target.abs().max() > 0.1


def test_settings_are_checked():
    with pytest.raises(InputError, match="chunk_size"):
        TAGNN(10, 4, chunk_size=0)
