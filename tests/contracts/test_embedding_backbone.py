"""The table of items that backbones share: its padding row, its initialisation, the check of the length."""

import pytest
import torch
from torch import nn

from llm4sbr import EmbeddingBackbone, InputError, Interests
from llm4sbr.contracts.checks import check_heads
from llm4sbr.testing import assert_backbone, make_batch


class LastClick(EmbeddingBackbone):
    """The last click through a layer."""

    def __init__(self, num_items, embedding_dim=16):
        super().__init__(num_items, embedding_dim)
        self.layer = nn.Linear(embedding_dim, embedding_dim)
        self.init_uniform()

    def encode(self, batch):
        self.check_length(batch)
        last = batch.item_ids.gather(1, batch.lengths.unsqueeze(1) - 1).squeeze(1)
        state = self.layer(self.embedding(last))
        return Interests(state, state)

    def merge(self, interests):
        return interests.short_term


def test_a_backbone_of_two_methods_keeps_the_contract():
    assert_backbone(LastClick)


def test_items_are_the_tables_rows_but_for_padding():
    model = LastClick(9)
    assert model.embedding.weight.shape == (10, 16)
    assert torch.equal(model.item_embeddings(), model.embedding.weight[1:])
    assert list(model.state_dict()) == ["embedding.weight", "layer.weight", "layer.bias"]


def test_padding_stays_zero_and_learns_nothing():
    model = LastClick(9)
    assert (model.embedding.weight[0] == 0).all()
    model.embedding.weight.data.fill_(1.0)
    model.zero_padding()
    assert (model.embedding.weight[0] == 0).all()
    assert (model.embedding.weight[1:] == 1).all()
    model.embedding(torch.tensor([0, 1])).sum().backward()
    assert model.embedding.weight.grad[:2].sum(1).tolist() == [0.0, 16.0]


def test_uniform_within_one_over_the_root_of_d():
    """In the order of the parameters, so that a seed means what it did."""
    model = LastClick(9)
    torch.manual_seed(0)
    model.init_uniform()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        drawn = torch.empty_like(parameter).uniform_(-0.25, 0.25)
        if name == "embedding.weight":
            drawn[0] = 0
        assert torch.equal(parameter, drawn)


def test_uniform_of_some_modules_leaves_the_others():
    model = LastClick(9)
    table, layer = model.embedding.weight.clone(), model.layer.weight.clone()
    model.init_uniform(model.layer)
    assert torch.equal(model.embedding.weight, table)
    assert not torch.equal(model.layer.weight, layer)


def test_a_batch_wider_than_max_length_is_refused():
    model = LastClick(9)
    model(make_batch([[1, 2, 3, 4]]))  # no limit
    model.max_length = 3
    model(make_batch([[1, 2, 3]]))
    with pytest.raises(InputError, match=r"LastClick was built for at most 3 clicks \(got 4\).*max_length"):
        model(make_batch([[1, 2, 3], [1]], padding=1))
    assert LastClick(9).max_length is None  # the class has none


def test_heads_that_do_not_divide_the_embedding_are_named():
    for value in (1, 4, 12):
        check_heads(12, setting=value)
    for value in (0, 5, 24):
        with pytest.raises(InputError, match="setting"):
            check_heads(12, setting=value)
