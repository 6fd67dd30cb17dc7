"""Titles in the items: against the formula, and in every backbone."""

import numpy as np
import pytest
import torch
from every_backbone import OURS
from plain import plain_wrapped
from torch import nn

from llm4sbr import InputError, Interests, ModuleBackbone, SessionBackbone
from llm4sbr.backbones import SRGNN
from llm4sbr.nn.heads import ItemTitles
from llm4sbr.nn.heads.item_titles import TitledTable, item_tables
from llm4sbr.nn.heads.title_axes import title_axes
from llm4sbr.nn.scorers import CosineScores
from llm4sbr.testing import make_batch, make_examples

V, TEXT, AXES, DIM = 13, 6, 4, 16
SESSIONS = [[1, 2, 3, 2], [13], [5, 5, 5], [9, 8, 7, 6, 1], [4, 2]]


def titles():
    torch.manual_seed(1)
    mask = torch.ones(V).bool()
    mask[6] = False
    return torch.nn.functional.normalize(torch.randn(V, TEXT) + 1, dim=1), mask


def wrapped(kind=SRGNN, **settings):
    torch.manual_seed(0)
    model = plain_wrapped(kind(V, DIM), text_dim=TEXT, heads=[ItemTitles(AXES)], **settings)
    model.backbone.read_training_sessions(make_examples([*SESSIONS, [13, 3], [6, 7, 8, 2]]))
    return model


def the_titles(model):
    (found,) = [module for module in model.modules() if isinstance(module, TitledTable)]
    return found


def test_the_axes_are_those_of_a_singular_value_decomposition():
    table, mask = titles()
    found = title_axes(table, mask, AXES)
    known = table[mask].double().numpy()
    axes = np.linalg.svd(known - known.mean(0))[2][:AXES]  # (p, d_t)
    axes = np.stack([axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes])
    expected = (known - known.mean(0)) @ axes.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found.titles[mask], expected, atol=1e-5)
    assert (found.titles[6] == 0).all()
    assert np.allclose(found.basis, axes.T, atol=1e-5)
    for wrong in (0, TEXT + 1):
        with pytest.raises(InputError, match="axes"):
            title_axes(table, mask, wrong)


def test_the_table_is_the_backbones_own_plus_projected_titles():
    model = wrapped()
    before = model.backbone.embedding.weight.detach().clone()
    own = model.backbone.embedding.parametrizations.weight.original
    assert torch.equal(before, own)  # no titles yet
    model.read_titles(*titles())
    table, head = model.backbone.embedding.weight, the_titles(model)
    reduced = title_axes(*titles(), AXES).titles
    assert torch.allclose(table[1:], own[1:] + reduced @ head.projection.weight.T, atol=1e-6)
    assert torch.equal(table[0], own[0])
    assert torch.equal(table[7], own[7])  # item 7 has no title
    # Before training titles stand to each other as they did, as long as an embedding is on average.
    projected = reduced @ head.projection.weight.T
    assert torch.allclose(
        projected @ projected.T, own[1:].norm(dim=1).mean() ** 2 * reduced @ reduced.T, atol=1e-5
    )


@pytest.mark.parametrize("name", OURS)
def test_every_backbone_learns_its_titles(name):
    """Seen to fail with tables that a backbone first reads under no_grad (LESSR), and with none found."""
    model = wrapped(OURS[name])
    batch = make_batch(SESSIONS, [2, 3, 4, 5, 1])
    model.eval()
    without = model(batch)
    model.read_titles(*titles())
    assert not torch.equal(model(batch), without)
    assert model(batch).shape == (5, V)
    model.train()
    losses = model.losses(batch)
    losses["loss"].backward()
    assert losses["loss"].isfinite()
    assert the_titles(model).projection.weight.grad.abs().sum() > 0
    own = model.backbone.embedding.parametrizations.weight.original
    assert own.grad[1:].abs().sum() > 0
    assert own.grad[0].abs().sum() == 0  # padding learns nothing


def test_a_table_is_computed_once_a_batch(monkeypatch):
    model, calls = wrapped(), []
    monkeypatch.setattr(TitledTable, "forward", lambda self, weight: calls.append(1) or weight + 0)
    batch = make_batch(SESSIONS, [2, 3, 4, 5, 1])
    model.losses(batch)
    assert len(calls) == 1
    model(batch)
    assert len(calls) == 2


def test_an_item_nobody_clicked_is_read_and_recommended_by_its_title():
    model = wrapped(scorer=CosineScores(8.0)).eval()
    table, mask = titles()
    table[8] = table[2]  # item 9 is called as item 3 is
    model.read_titles(table, mask)
    with torch.no_grad():
        model.backbone.embedding.parametrizations.weight.original[[3, 9]] = 0.0
    scores = model(make_batch([[1, 2, 3], [1, 2, 9]]))
    assert torch.allclose(scores[:, 2], scores[:, 8], atol=1e-6)
    assert torch.allclose(scores[0], scores[1], atol=1e-6)


class Positions(SessionBackbone):
    """As many positions as items: only one of the tables is the items'."""

    def __init__(self, num_items, embedding_dim=8):
        super().__init__(num_items, embedding_dim)
        self.position = nn.Embedding(num_items, embedding_dim)
        self.items = nn.Embedding(num_items + 1, embedding_dim, padding_idx=0)

    def encode(self, batch):
        place = torch.arange(batch.item_ids.size(1))
        mean = (self.items(batch.item_ids) + self.position(place)).mean(1)
        return Interests(mean, mean)

    def merge(self, interests):
        return interests.long_term

    def item_embeddings(self):
        return self.items.weight[1:]


def test_tables_of_positions_are_told_from_items():
    backbone = Positions(V)
    assert item_tables(backbone) == [backbone.items]


def test_a_module_of_ones_own_gets_titles_and_one_without_a_table_goes_without():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = nn.EmbeddingBag(V, 4, mode="mean")  # no padding row: item 1 is row 0

    def read(module, batch):
        return torch.stack([module.items(row[row > 0].unsqueeze(0) - 1)[0] for row in batch.item_ids])

    model = plain_wrapped(ModuleBackbone(V, Mean(), read, "items"), text_dim=TEXT, heads=[ItemTitles(AXES)])
    model.read_titles(*titles())
    model.losses(make_batch(SESSIONS, [2, 3, 4, 5, 1]))["loss"].backward()
    assert the_titles(model).projection.weight.grad.abs().sum() > 0

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = nn.Parameter(torch.randn(V, 4))

    with pytest.warns(match="no titles go into its items"):
        bare = plain_wrapped(
            ModuleBackbone(V, Bare(), read, "items"), text_dim=TEXT, heads=[ItemTitles(AXES)]
        )
    bare.read_titles(*titles())
    assert not [module for module in bare.modules() if isinstance(module, TitledTable)]
    with pytest.raises(InputError, match="one an item"):
        model.read_titles(torch.ones(V + 1, TEXT), torch.ones(V + 1).bool())
