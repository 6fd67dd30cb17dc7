"""SR-GNN, GRU4Rec and SASRec against computations by hand, and the check of the contract against faults."""

from itertools import pairwise

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.backbones import SRGNN, GRU4Rec, SASRec
from llm4sbr.testing import assert_backbone, make_batch


def test_contract_with_two_steps():
    assert_backbone(lambda num_items: SRGNN(num_items, 8, steps=2))


class ReadsPadding(GRU4Rec):
    """A backbone with the commonest fault of all."""

    def merge(self, interests):
        return interests.long_term

    def encode(self, batch):
        interests = super().encode(batch)
        return interests._replace(long_term=self.gru(self.embedding(batch.item_ids))[0].mean(1))


def test_the_check_finds_a_backbone_that_reads_padding():
    with pytest.raises(AssertionError, match="padding"):
        assert_backbone(lambda num_items: ReadsPadding(num_items, 8))


class KeepsPaddingRow(GRU4Rec):
    def item_embeddings(self):
        return self.embedding.weight


def test_the_check_finds_a_padding_row():
    with pytest.raises(AssertionError, match="none for padding"):
        assert_backbone(lambda num_items: KeepsPaddingRow(num_items, 8))


def broken(encode=None, score=None, **parts):
    """GRU4Rec with a fault: in its interests, its scores, or a method."""

    def encoded(self, batch):
        found = GRU4Rec.encode(self, batch)
        return encode(self, batch, found) if encode else found

    def scored(self, session, interests):
        found = GRU4Rec.score(self, session, interests)
        return score(self, found) if score else found

    return type("Broken", (GRU4Rec,), {"encode": encoded, "score": scored, **parts})


def nan_for_one_click(self, batch, found):
    return found._replace(short_term=found.short_term / (batch.lengths > 1).float().unsqueeze(1))


def first_row_louder(self, batch, found):
    louder = torch.ones(len(batch.lengths), 1)
    louder[0] = 2 if len(batch.lengths) > 1 else 1
    return found._replace(short_term=found.short_term * louder)


def mean_of_the_batch(self, batch, found):
    return found._replace(short_term=found.short_term + found.short_term.mean(0))


def other_without_graph(self, batch, found):
    return found if batch.graph is not None else found._replace(short_term=2 * found.short_term)


def detached(self, batch, found):
    return found._replace(long_term=found.long_term.detach(), short_term=found.short_term.detach())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (broken(lambda self, batch, found: tuple(found)), "encode must return Interests"),
        (
            broken(lambda self, batch, found: found._replace(short_term=found.short_term[:, :3])),
            "short_term is",
        ),
        (broken(merge=lambda self, interests: interests.long_term[:1]), r"merge gives \(1, 8\)"),
        (broken(score=lambda self, scores: scores[:, :-1]), r"scores are \(5, 12\), expected \(5, 13\)"),
        (broken(nan_for_one_click), "scores are not finite"),
        (broken(other_without_graph), "without a graph differs"),
        (broken(first_row_louder), "permuting the batch does not permute"),
        (broken(mean_of_the_batch), "scores differently alone"),
        (broken(detached), "no gradient reaches gru"),
    ],
)
def test_the_check_finds_each_fault_that_it_names(fault, told):
    """A check that passes everything would be worth nothing. Seen to fail with each check left out."""
    with pytest.raises(AssertionError, match=told):
        assert_backbone(lambda num_items: fault(num_items, 8))


def srgnn_by_hand(model, session):
    """SR-GNN of one session with dense adjacency matrices (arXiv:1811.00855, Eq. 1-7)."""
    nodes = sorted(set(session))
    where = {item: row for row, item in enumerate(nodes)}
    adjacency = torch.zeros(len(nodes), len(nodes))
    for u, v in pairwise(session):
        adjacency[where[u], where[v]] = 1
    outgoing = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    incoming = (adjacency / adjacency.sum(0, keepdim=True).clamp(min=1)).T
    conv, hidden = model.conv, model.embedding(torch.tensor(nodes))
    a = torch.cat((incoming @ conv.incoming(hidden), outgoing @ conv.outgoing(hidden)), dim=1) + conv.bias
    w_i, w_h = conv.cell.weight_ih.chunk(3), conv.cell.weight_hh.chunk(3)
    b_i, b_h = conv.cell.bias_ih.chunk(3), conv.cell.bias_hh.chunk(3)
    reset = torch.sigmoid(a @ w_i[0].T + b_i[0] + hidden @ w_h[0].T + b_h[0])
    update = torch.sigmoid(a @ w_i[1].T + b_i[1] + hidden @ w_h[1].T + b_h[1])
    candidate = torch.tanh(a @ w_i[2].T + b_i[2] + reset * (hidden @ w_h[2].T + b_h[2]))
    hidden = candidate + update * (hidden - candidate)
    clicks = torch.stack([hidden[where[item]] for item in session])
    last = clicks[-1]
    s_g = torch.zeros_like(last)
    for click in clicks:
        gate = torch.sigmoid(model.attend_last(last) + model.attend_click(click))
        s_g = s_g + model.attend_score(gate) * click
    return model.readout(torch.cat((s_g, last))) @ model.embedding.weight[1:].T


@pytest.mark.parametrize("session", [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7]])
def test_srgnn_is_the_papers(session):
    torch.manual_seed(0)
    model = SRGNN(9, 6)
    batch = make_batch([[8, 9, 1], session, [2]])
    assert torch.allclose(model(batch)[1], srgnn_by_hand(model, session), atol=1e-6)


def test_gru4rec_reads_out_its_last_state():
    torch.manual_seed(0)
    model = GRU4Rec(9, 6).eval()
    state = torch.zeros(6)
    cell = torch.nn.GRUCell(6, 6)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.gru.state_dict().items()})
    states = []
    for item in [4, 2, 7]:
        state = cell(model.embedding.weight[item], state)
        states.append(model.readout(state))
    interests = model.encode(make_batch([[4, 2, 7], [1]], padding=2))
    assert torch.allclose(interests.short_term[0], states[-1], atol=1e-6)
    assert torch.allclose(interests.long_term[0], torch.stack(states).mean(0), atol=1e-6)


def test_sasrec_by_hand():
    """One block, one head, written out: attention sees the past only."""
    torch.manual_seed(0)
    model = SASRec(9, 4, num_blocks=1, num_heads=1).eval()
    block, session = model.blocks.layers[0], [4, 2, 7]
    x = model.embedding(torch.tensor(session)) * 2 + model.position.weight[:3]  # sqrt(d) = 2
    normed = block.norm1(x)
    q, k, v = (normed @ block.self_attn.in_proj_weight.T + block.self_attn.in_proj_bias).chunk(3, dim=-1)
    rows = []
    for i in range(3):
        weights = torch.softmax(torch.stack([q[i] @ k[j] / 2 for j in range(i + 1)]), dim=0)
        rows.append(sum(weights[j] * v[j] for j in range(i + 1)))
    x = x + block.self_attn.out_proj(torch.stack(rows))
    x = x + block.linear2(torch.relu(block.linear1(block.norm2(x))))
    expected = model.blocks.norm(x)
    interests = model.encode(make_batch([session, [1]], padding=1))
    assert torch.allclose(interests.short_term[0], expected[-1], atol=1e-5)
    assert torch.allclose(interests.long_term[0], expected.mean(0), atol=1e-5)


def test_settings_are_checked():
    with pytest.raises(InputError, match="num_items"):
        SRGNN(0)
    with pytest.raises(InputError, match="num_heads"):
        SASRec(10, 10, num_heads=3)
    with pytest.raises(InputError, match="max_length"):
        SASRec(10, 4, num_heads=1, max_length=2)(make_batch([[1, 2, 3]]))
