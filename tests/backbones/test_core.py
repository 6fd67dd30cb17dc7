"""CORE against the paper's equations, its transformer written out for one session."""

import pytest
import torch
from plain import plain_wrapped

from llm4sbr import InputError
from llm4sbr.backbones.core import CORE, TransformerSize
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "ave"},
        {"transformer": TransformerSize(num_blocks=1, num_heads=4)},
        {"transformer": TransformerSize(inner_dim=7, max_length=8)},
    ],
)
def test_contract(options):
    assert_backbone(lambda num_items: CORE(num_items, 16, **options))


def loud(model):
    """The same model with weights of ordinary size: at the authors' 0.02 all clicks weigh alike."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.eval()


def normalised(x, norm):
    spread = (x - x.mean()).square().mean()
    return (x - x.mean()) / (spread + 1e-12).sqrt() * norm.weight + norm.bias


def weights_by_hand(model, session):
    """alpha of CORE-trm (arXiv:2204.11067, Sec. 3.2): click by click, two heads; the past only."""
    net, size = model.weights, model.embedding_dim // 2
    rows = [
        normalised(model.embedding.weight[item] + net.position.weight[place], net.norm)
        for place, item in enumerate(session)
    ]
    assert len(net.blocks.layers) == 2
    for block in net.blocks.layers:
        attention = block.self_attn
        q, k, v = (
            [w @ row + b for row in rows]
            for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        )
        attended = []
        for i in range(len(rows)):
            heads = []
            for part in (slice(size), slice(size, 2 * size)):
                found = torch.stack([q[i][part] @ k[j][part] / size**0.5 for j in range(i + 1)]).softmax(0)
                heads.append(sum(found[j] * v[j][part] for j in range(i + 1)))
            attended.append(attention.out_proj.weight @ torch.cat(heads) + attention.out_proj.bias)
        rows = [normalised(row + new, block.norm1) for row, new in zip(rows, attended, strict=True)]
        fed = []
        for row in rows:
            inner = block.linear1.weight @ row + block.linear1.bias
            inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))  # gelu
            fed.append(block.linear2.weight @ inner + block.linear2.bias)
        rows = [normalised(row + new, block.norm2) for row, new in zip(rows, fed, strict=True)]
    return torch.stack([net.weight.weight[0] @ row for row in rows]).softmax(0)


def scores_by_hand(model, h_s):
    items = model.embedding.weight[1:]
    cosines = [item @ h_s / (item.norm() * h_s.norm()) for item in items]
    return torch.stack(cosines) / 0.07


@pytest.mark.parametrize("session", SESSIONS)
def test_core_trm_is_the_papers(session):
    torch.manual_seed(0)
    model = loud(CORE(9, 6, transformer=TransformerSize(inner_dim=5)))
    batch = make_batch([[8, 9, 1], session, [2]], padding=1)
    alpha = weights_by_hand(model, session)
    h_s = sum(a * model.embedding.weight[item] for a, item in zip(alpha, session, strict=True))
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], h_s, atol=1e-5)
    assert torch.allclose(interests.short_term[1], model.embedding.weight[session[-1]])
    assert torch.allclose(model(batch)[1], scores_by_hand(model, h_s), atol=1e-4)  # scores reach 14


@pytest.mark.parametrize("session", SESSIONS)
def test_core_ave_is_the_papers(session):
    torch.manual_seed(0)
    model = CORE(9, 6, encoder="ave").eval()
    batch = make_batch([[8, 9, 1], session, [2]], padding=1)
    h_s = sum(model.embedding.weight[item] for item in session) / len(session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], h_s, atol=1e-6)
    assert torch.allclose(interests.short_term[1], model.embedding.weight[session[-1]])
    assert torch.allclose(model(batch)[1], scores_by_hand(model, h_s), atol=1e-5)


@pytest.mark.parametrize("encoder", ["trm", "ave"])
def test_a_session_of_one_repeated_item_is_that_item(encoder):
    """The paper's case for consistency: such sessions all fall on the item itself, its cosine is 1."""
    torch.manual_seed(0)
    model = loud(CORE(9, 6, encoder=encoder))
    scores = model(make_batch([[4], [4, 4], [4, 4, 4, 4, 4]]))
    assert scores.argmax(1).tolist() == [3, 3, 3]
    assert torch.allclose(scores[:, 3], torch.full((3,), 1 / 0.07), atol=1e-4)
    assert torch.allclose(scores[0], scores[2], atol=1e-4)


def test_weights_end_with_the_session():
    torch.manual_seed(0)
    model = loud(CORE(9, 6))
    batch = make_batch([[1, 2, 3], [4]], padding=2)
    alpha = model.weights(model.embedding(batch.item_ids), batch.padding_mask())
    assert torch.allclose(alpha.sum(1), torch.ones(2))
    assert alpha[0, 3:].tolist() == [0, 0]
    assert alpha[1].tolist() == [1, 0, 0, 0, 0]


def test_the_wrappers_fused_vector_is_scored_by_its_cosine():
    torch.manual_seed(0)
    wrapper = plain_wrapped(CORE(9, 6, temperature=0.5), text_dim=8).eval()
    batch = make_batch([[1, 2, 3], [4]])._replace(views=torch.randn(2, 2, 8))
    fused = wrapper.enhance(batch).session
    expected = torch.cosine_similarity(
        fused.unsqueeze(1), wrapper.backbone.embedding.weight[1:].unsqueeze(0), dim=-1
    )
    assert torch.allclose(wrapper(batch), expected / 0.5, atol=1e-5)


def test_each_dropout_stands_in_its_place():
    torch.manual_seed(0)
    batch = make_batch([[1, 2, 3], [4, 5]])
    off = {"item_dropout": 0.0, "session_dropout": 0.0, "dropout": 0.0}

    def changes(part, **rates):
        model = CORE(9, 32, **{**off, **rates})
        return not torch.equal(part(model), part(model))

    def long_term(model):
        return model.encode(batch).long_term

    def last(model):
        return model.encode(batch).short_term

    assert not changes(lambda model: model(batch))
    assert changes(lambda model: model(batch), item_dropout=0.5)
    assert not changes(long_term, item_dropout=0.5)
    assert changes(last, session_dropout=0.5)
    assert changes(long_term, dropout=0.5)
    assert not changes(last, dropout=0.5)


def test_the_transformer_drops_where_the_authors_do():
    torch.manual_seed(0)
    model = CORE(9, 32, dropout=0.5)
    net = model.weights
    entered, between = [], []
    net.blocks.layers[0].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    net.blocks.layers[1].linear2.register_forward_pre_hook(lambda _, given: between.append(given[0]))
    model(make_batch([[1, 2, 3], [4, 5]]))
    assert 0.3 < (entered[0] == 0).float().mean() < 0.7
    assert (between[0] == 0).float().mean() < 0.1  # not between the two maps of a feed-forward layer
    for block in net.blocks.layers:
        assert (block.self_attn.dropout, block.dropout1.p, block.dropout2.p) == (0.5, 0.5, 0.5)


def test_dropped_items_are_normalised_again():
    torch.manual_seed(0)
    model = CORE(9, 64, encoder="ave", temperature=1.0, session_dropout=0.0, item_dropout=0.5)
    eye = torch.eye(64)
    items = model.score(eye, None).T  # (V, d): the dropped-out items themselves
    assert 0.3 < (items == 0).float().mean() < 0.7
    assert torch.allclose(items.norm(dim=1), torch.ones(9), atol=1e-5)
    assert torch.allclose(model.eval().score(eye, None).T, model.item_embeddings(), atol=1e-6)
    assert torch.allclose(model.item_embeddings().norm(dim=1), torch.ones(9), atol=1e-6)


def test_starts_as_the_authors_code():
    torch.manual_seed(0)
    model = CORE(2000, 64)
    assert model.embedding.weight[0].abs().sum() == 0
    assert 0.124 < model.embedding.weight.abs().max() <= 0.125
    block = model.weights.blocks.layers[1]
    for weight in (block.self_attn.in_proj_weight, block.linear1.weight, model.weights.position.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.linear1.bias.abs().sum() == 0
    assert torch.equal(block.norm1.weight, torch.ones(64))


def test_the_bias_that_a_softmax_forgets_is_not_trained():
    model = loud(CORE(9, 6))
    batch = make_batch([[1, 2, 3], [4]])
    scores = model(batch).detach()
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["weights.blocks.layers.1.norm2.bias"]
    torch.nn.init.normal_(dict(model.named_parameters())[frozen[0]].data)
    assert torch.allclose(model(batch), scores, atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("encoder", "gru"),
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("item_dropout", 1.0),
        ("session_dropout", -0.1),
        ("dropout", 1.5),
    ],
)
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        CORE(9, 4, **{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_heads", 3), ("num_heads", 0), ("num_blocks", 0), ("inner_dim", 0), ("max_length", 0)],
)
def test_the_size_of_the_transformer_is_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        CORE(9, 4, transformer=TransformerSize(**{setting: value}))


def test_a_longer_session_than_positions_is_told():
    short = TransformerSize(max_length=2)
    model = CORE(9, 4, transformer=short)
    model(make_batch([[1, 2]]))
    with pytest.raises(InputError, match="max_length"):
        model(make_batch([[1, 2, 3]]))
    CORE(9, 5, encoder="ave", transformer=short)(make_batch([[1, 2, 3]]))  # no positions, no heads
