"""STAMP against the paper's equations, written out for one session."""

import pytest
import torch

from llm4sbr.backbones.stamp import STAMP
from llm4sbr.testing import make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]


def loud(model):
    """The same model with weights of ordinary size: at the paper's 0.002 a wrong term would not be seen."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def interests_by_hand(model, session):
    """h_s and h_t of one session (KDD 2018, Sec. 3.3-3.4)."""
    x = [model.embedding.weight[item] for item in session]
    m_s = sum(x) / len(x)
    w_0, w_1 = model.attend_score.weight[0], model.attend_click.weight
    w_2, b_a, w_3 = model.attend_last.weight, model.attend_last.bias, model.attend_mean.weight
    m_a = torch.zeros(model.embedding_dim)
    for x_i in x:
        m_a = m_a + (w_0 @ torch.sigmoid(w_1 @ x_i + w_2 @ x[-1] + w_3 @ m_s + b_a)) * x_i
    if model.add_mean:  # the authors' code
        m_a = m_a + m_s
    h_s = torch.tanh(model.general.weight @ m_a + model.general.bias)
    h_t = torch.tanh(model.current.weight @ x[-1] + model.current.bias)
    return h_s, h_t


@pytest.mark.parametrize("add_mean", [False, True])
@pytest.mark.parametrize("session", SESSIONS)
def test_stamp_is_the_papers(session, add_mean):
    torch.manual_seed(0)
    model = loud(STAMP(9, 6, add_mean))
    batch = make_batch([[8, 9, 1], session, [2]])
    h_s, h_t = interests_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], h_s, atol=1e-5)
    assert torch.allclose(interests.short_term[1], h_t, atol=1e-5)
    trilinear = [
        sum(h_s[k] * h_t[k] * model.embedding.weight[item, k] for k in range(6)) for item in range(1, 10)
    ]
    assert torch.allclose(model(batch)[1], torch.stack(trilinear), atol=1e-5)


def test_starts_as_the_paper():
    torch.manual_seed(0)
    model = STAMP(2000, 64)
    assert model.embedding.weight[0].abs().sum() == 0
    assert model.embedding.weight[1:].std().item() == pytest.approx(0.002, rel=0.02)
    for layer in (model.attend_click, model.attend_last, model.attend_mean, model.general, model.current):
        assert layer.weight.std().item() == pytest.approx(0.05, rel=0.05)
    for layer in (model.attend_last, model.general, model.current):
        assert layer.bias.abs().sum() == 0
