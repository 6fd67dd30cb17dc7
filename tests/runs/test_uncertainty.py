"""How certain a bare model is: the entropy of its scores, and scoring sessions without their targets."""

import math
import random

import pytest
import torch
from lightning.pytorch import LightningModule

from llm4sbr import InputError, SBRModule
from llm4sbr.backbones import GRU4Rec
from llm4sbr.nn.uncertainty import entropy
from llm4sbr.runs.uncertainty import session_entropies
from llm4sbr.views.inference.sessions import session_keys

ALL = ("train", "validate", "test")


def untrained(num_items=30):
    """A bare model whose scores differ from session to session."""
    torch.manual_seed(3)
    model = SBRModule(GRU4Rec(num_items, 8))
    model.backbone.embedding.weight.data.mul_(8)
    return model


def test_entropy_is_that_of_the_softmax_worked_out_by_hand():
    """Seen to fail with `softmax(0)` and with log2 instead of nats."""
    rows = [[0.0, 1.0, 2.0], [5.0, 5.0, 5.0], [200.0, 0.0, -200.0], [1.0, -math.inf, 1.0]]
    expected = []
    for row in rows:
        weights = [math.exp(score - max(row)) for score in row]
        shares = [weight / sum(weights) for weight in weights]
        expected.append(-sum(p * math.log(p) for p in shares if p > 0))
    found = entropy(torch.tensor(rows))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert entropy(torch.tensor(rows) + 7).tolist() == pytest.approx(expected, abs=1e-5)  # a shift is nothing


class Watched(LightningModule):
    """Remembers its batches; scores that follow from the clicks alone."""

    def __init__(self, num_items, scale=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(num_items + 1, num_items) * scale)
        self.dropout = torch.nn.Dropout(0.5)
        self.batches = []

    def forward(self, batch):
        self.batches.append(batch)
        assert not torch.is_grad_enabled()
        return self.dropout(self.weight[batch.item_ids].sum(1) - self.weight[0] * 0)


class Wavering(Watched):
    """Its arithmetic follows from the place in the batch, as last bits do on a real device."""

    def forward(self, batch):
        return super().forward(batch) * (1 + torch.arange(len(batch.lengths)).unsqueeze(1))


def sessions_of(source, *splits):
    return {key: prefix for split in splits for key, prefix in session_keys(source, split)}


def test_scores_in_memory_are_bounded_and_batches_change_nothing(stubs):
    """Seen to fail with `size` left at 512, and with the keys zipped to another order than the scores."""
    source = stubs.FakeSource()
    sessions, model = sessions_of(source, "train", "test"), untrained()
    whole = session_entropies(model, sessions, 30)
    assert whole.keys() == sessions.keys()
    watched = Watched(30)
    one_by_one = {
        key: session_entropies(model, {key: prefix}, 30)[key] for key, prefix in list(sessions.items())[:20]
    }
    assert {key: whole[key] for key in one_by_one} == pytest.approx(one_by_one, abs=1e-5)
    counted = []
    session_entropies(watched, sessions, 30, scores_at_once=30 * 7 + 29, advance=counted.append)
    assert max(len(batch.lengths) for batch in watched.batches) == 7
    assert sum(counted) == len(sessions)
    assert sum(len(batch.lengths) for batch in watched.batches) == len(sessions)  # each once


def test_the_order_of_sessions_changes_not_one_bit(stubs):
    """Seen to fail with the batches made in the dictionary's order."""
    sessions, model = sessions_of(stubs.FakeSource(), *ALL), Wavering(30)
    entries = list(sessions.items())
    random.Random(5).shuffle(entries)
    assert session_entropies(model, dict(entries), 30, scores_at_once=200) == session_entropies(
        model, sessions, 30, scores_at_once=200
    )


def test_dropout_is_off_and_the_mode_is_given_back(stubs):
    """Seen to fail without `model.eval()`, and without `model.train(was_training)`."""
    sessions, model = sessions_of(stubs.FakeSource(), "test"), Watched(30).train()
    assert session_entropies(model, sessions, 30) == session_entropies(model, sessions, 30)
    assert model.training


def test_no_target_reaches_the_model(stubs):
    """Seen to fail with the batch's targets filled from the prefix."""
    model = Watched(30)
    session_entropies(model, sessions_of(stubs.FakeSource(), *ALL), 30)
    assert not any(batch.target.any() for batch in model.batches)


def test_a_model_that_diverged_or_is_of_another_catalogue_is_refused(stubs):
    sessions = sessions_of(stubs.FakeSource(), "test")
    with pytest.raises(InputError, match="not finite"):
        session_entropies(Watched(30, scale=math.nan), sessions, 30)
    with pytest.raises(InputError, match="scores 31 items, the catalogue has 30"):
        session_entropies(Watched(31), sessions, 30)
