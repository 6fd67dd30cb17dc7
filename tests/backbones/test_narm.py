"""NARM against the paper's equations, written out for one session."""

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.backbones.narm import NARM
from llm4sbr.testing import make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]


def interests_by_hand(model, session):
    """c^g and c^l of one session (arXiv:1711.04725, Sec. 3.3-3.5), gate by gate."""
    w_r, w_z, w_n = model.gru.weight_ih_l0.chunk(3)
    u_r, u_z, u_n = model.gru.weight_hh_l0.chunk(3)
    state, states = torch.zeros(model.embedding_dim), []
    for item in session:
        x = model.embedding.weight[item]
        reset = torch.sigmoid(w_r @ x + u_r @ state)
        keep = torch.sigmoid(w_z @ x + u_z @ state)
        state = keep * state + (1 - keep) * torch.tanh(w_n @ x + reset * (u_n @ state))
        states.append(state)
    a_1, a_2, v = model.attend_last.weight, model.attend_click.weight, model.attend_score.weight[0]
    c_l = torch.zeros(model.embedding_dim)
    for h_j in states:
        c_l = c_l + (v @ torch.sigmoid(a_1 @ states[-1] + a_2 @ h_j)) * h_j
    return states[-1], c_l


@pytest.mark.parametrize("session", SESSIONS)
def test_narm_is_the_papers(session):
    torch.manual_seed(0)
    model = NARM(9, 6).eval()
    batch = make_batch([[8, 9, 1], session, [2]])
    c_g, c_l = interests_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.short_term[1], c_g, atol=1e-5)
    assert torch.allclose(interests.long_term[1], c_l, atol=1e-5)
    c_t = torch.cat((c_g, c_l))
    scores = [model.embedding.weight[item] @ model.bilinear.weight @ c_t for item in range(1, 10)]
    assert torch.allclose(model(batch)[1], torch.stack(scores), atol=1e-5)


def test_both_dropouts_stand_where_the_paper_has_them():
    torch.manual_seed(0)
    batch = make_batch([[1, 2, 3], [4]])

    def changes(part, **rates):
        model = NARM(9, 32, **rates)
        return not torch.equal(part(model, model.encode(batch)), part(model, model.encode(batch)))

    def state(model, interests):
        return interests.short_term

    def merged(model, interests):
        return model.merge(interests)

    assert changes(state, session_dropout=0.0)
    assert not changes(state, embedding_dropout=0.0)
    assert changes(merged, embedding_dropout=0.0)
    assert not changes(merged, embedding_dropout=0.0, session_dropout=0.0)


def test_starts_as_the_authors_code():
    torch.manual_seed(0)
    model = NARM(2000, 64)
    assert model.embedding.weight[0].abs().sum() == 0
    assert model.embedding.weight[1:].std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.02)
    assert model.bilinear.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    for gate in model.gru.weight_hh_l0.chunk(3):
        assert torch.allclose(gate @ gate.T, torch.eye(64), atol=1e-5)


@pytest.mark.parametrize("setting", ["embedding_dropout", "session_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        NARM(9, 4, **{setting: value})
