"""Atten-Mixer against the paper's equations, written out for one session."""

import math

import pytest
import torch
from hooks import shapes_through

from llm4sbr import InputError
from llm4sbr.backbones.atten_mixer import AttenMixer
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[3], [1, 2, 3], [4, 5, 4, 6, 5, 4], [7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 9]]
OPTIONS = [
    {},
    {"levels": 1, "heads": 1, "power": math.inf},
    {"levels": 3, "heads": 2, "power": 1.0, "scale": 3.0},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_contract(options):
    assert_backbone(lambda num_items: AttenMixer(num_items, 16, **options))


def strong(num_items=9, dim=8, **options):
    """A model whose attention is far from uniform, so that nothing hides in a mean."""
    torch.manual_seed(0)
    model = AttenMixer(num_items, dim, **options).eval().requires_grad_(False)
    for parameter in (*model.query.parameters(), *model.key.parameters(), model.level_bias):
        parameter.mul_(5)
    return model


def unit(vector):
    return vector / vector.square().sum().sqrt()


def interests_by_hand(model, session):
    """s_g and x_n of one session (arXiv:2206.12781), weight by weight."""
    x = [unit(model.embedding.weight[item]) for item in session]
    queries = []
    for level in range(1, model.levels + 1):
        total = sum(x[-level:])  # fewer where the session has fewer
        queries.append(unit(total @ model.level_weight[level - 1] + model.level_bias[level - 1]))
    size = model.embedding_dim // model.heads
    mixed = []
    for head in range(model.heads):
        rows = slice(head * size, (head + 1) * size)

        def of_head(layer, vector, rows=rows):
            return layer.weight[rows] @ vector + layer.bias[rows]

        maps = []
        for query in queries:
            agreement = [
                torch.sigmoid(of_head(model.query, query) @ of_head(model.key, click)) for click in x
            ]
            odds = [math.exp(2 * value) for value in agreement]
            maps.append([value / sum(odds) for value in odds])
        pooled = []
        for click in range(len(x)):
            column = [weights[click] for weights in maps]
            if model.power == math.inf:
                pooled.append(max(column))
            else:
                pooled.append(sum(value**model.power for value in column) ** (1 / model.power))
        odds = [math.exp(2 * value) for value in pooled]
        values = [of_head(model.value, click) for click in x]
        mixed.append(sum(odd / sum(odds) * value for odd, value in zip(odds, values, strict=True)))
    attended = torch.cat(mixed)
    centred = attended - attended.mean()
    normed = centred / torch.sqrt(centred.square().mean() + 1e-8) * model.norm.weight + model.norm.bias
    return normed, x[-1]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("session", SESSIONS)
def test_atten_mixer_is_the_papers(session, options):
    model = strong(**options)
    batch = make_batch([[8, 9, 1], session, [2]], padding=1)
    s_g, x_n = interests_by_hand(model, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], s_g, atol=1e-5)
    assert torch.allclose(interests.short_term[1], x_n, atol=1e-5)
    s = unit(model.readout.weight @ torch.cat((s_g, x_n)) + model.readout.bias)
    scores = [model.scale * (s @ unit(model.embedding.weight[item])) for item in range(1, 10)]
    assert torch.allclose(model(batch)[1], torch.stack(scores), atol=1e-5)


def test_order_counts_among_the_last_levels_only():
    model = strong(levels=2)
    scores = model(make_batch([[1, 2, 3, 4, 5], [2, 3, 1, 4, 5], [1, 2, 4, 3, 5]]))
    assert torch.allclose(scores[0], scores[1], atol=1e-6)
    assert not torch.allclose(scores[0], scores[2], atol=1e-4)


def test_scores_know_no_lengths_of_vectors():
    model = strong()
    session = torch.randn(2, 8)
    scores = model.score(session, None)
    model.embedding.weight.mul_(3)
    assert torch.allclose(model.score(7 * session, None), scores, atol=1e-5)
    assert scores.abs().max() <= model.scale


def test_dropout_stands_where_the_authors_have_it():
    model, batch = strong().train(), make_batch([[1, 2, 3], [4]])
    through_encode = shapes_through(model.dropout, lambda: model.encode(batch))
    assert through_encode == [(2, 3, 8), (2, model.heads, 3)]
    assert shapes_through(model.dropout, lambda: model.score(torch.randn(2, 8), None)) == [(9, 8)]
    # Clicks have unit length after their dropout, not before it.
    assert torch.allclose(model.encode(batch).short_term.norm(dim=-1), torch.ones(2))
    assert torch.equal(model.eval()(batch), model(batch))


def test_starts_as_the_authors_code():
    torch.manual_seed(0)
    model = AttenMixer(500, 100)
    assert model.embedding.weight[0].abs().sum() == 0
    assert (model.levels, model.power, model.scale, model.dropout.p) == (7, 4.0, 16.0, 0.1)
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= 0.1, name
        if parameter.numel() > 5000:
            assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05), name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("levels", 0),
        ("heads", 0),
        ("heads", 3),
        ("power", 0.5),
        ("power", math.nan),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("scale", 0.0),
        ("scale", math.inf),
    ],
)
def test_settings_are_checked(setting, value):
    with pytest.raises(InputError, match=setting):
        AttenMixer(9, 8, **{setting: value})
