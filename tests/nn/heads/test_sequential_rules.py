"""Sequential rules beside a model: against the counting baseline and by hand, and only where they belong."""

import math

import numpy as np
import pytest
import torch
from lightning import Trainer
from plain import plain_bare, plain_wrapped
from shops import write_shop

from llm4sbr.backbones import STAMP
from llm4sbr.baselines import ItemKNN
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import SequentialRules
from llm4sbr.testing import make_batch, make_examples

IDLE = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def drawn_sessions(count, num_items, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(1, num_items + 1, generator.integers(2, 9)).tolist() for _ in range(count)]


def counting(num_items, *options, **more):
    rules = SequentialRules(*options, **more)
    rules.attach(STAMP(num_items, 4))
    return rules


def test_rules_are_the_counting_baselines():
    """Repeated items, items without rules."""
    sessions, num_items = drawn_sessions(60, 24), 30
    rules = counting(num_items, 1.0, neighbors=7)
    rules.read_training_sessions(make_examples(sessions))
    counted = ItemKNN(7, 20.0, 1.0, order="later", pair_decay="harmonic", weighting="harmonic")
    counted.fit(make_examples(sessions), num_items)
    batch = make_batch([*drawn_sessions(40, 30, seed=1), [29], [3, 3, 3]], padding=2)
    expected = counted.scores(batch)
    assert (expected > 0).any(1).sum() > 30
    torch.testing.assert_close(rules.rules(batch), expected)


@pytest.mark.parametrize(("repeat", "shown"), [([], False), ([[4, 4]], True)])
def test_items_of_the_session_get_rules_where_sessions_repeat_items(repeat, shown):
    """Seen to fail with the session's items always left out, and with them never left out."""
    rules = counting(4, 1.0)
    rules.read_training_sessions(make_examples([[1, 2, 3], [2, 1, 3], *repeat]))
    found = rules.rules(make_batch([[1, 2]]))[0] > 0
    assert found.tolist() == [shown, shown, True, False]


def test_the_product_by_hand():
    """Training has 1, 2, 3; asked after 1, item 2 has 2/3 of the rules, item 3 the rest."""
    rules = counting(4, 0.5)
    rules.read_training_sessions(make_examples([[1, 2, 3]]))
    found = rules(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), None, make_batch([[1]]))
    shares = [0, 2 / 3, 1 / 3, 0]
    expected = [
        s + 0.5 * math.log(1e-4 + share) for s, share in zip((0.1, 0.2, 0.3, 0.4), shares, strict=True)
    ]
    assert found.tolist()[0] == pytest.approx(expected, abs=1e-5)
    scores = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    assert rules(scores, None, make_batch([[4]])).argsort().tolist() == scores.argsort().tolist()  # no rule


def test_sums_do_not_depend_on_the_rest_of_the_batch():
    sessions = drawn_sessions(50, 20)
    rules = counting(20, 1.0)
    rules.read_training_sessions(make_examples(sessions))
    together = rules.rules(make_batch(sessions))
    apart = torch.cat([rules.rules(make_batch([one])) for one in sessions])
    assert torch.equal(together, apart)


@pytest.fixture
def shop(tmp_path):
    write_shop(tmp_path, sessions=40, clicks=lambda session: 3 + session % 3)
    return SessionDataModule(tmp_path, split=SplitBy("column"), cache_dir=tmp_path / "cache", batch_size=8)


@pytest.mark.parametrize("kind", [plain_bare, plain_wrapped])
def test_training_is_the_same_and_what_is_measured_is_not(shop, kind):
    """Seen to fail with the rules in the training scores."""
    weights, metrics = [], []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        heads = [SequentialRules(weight)] if weight else []
        model = kind(STAMP(shop.num_items, 8), heads=heads)
        trainer = Trainer(max_epochs=2, limit_val_batches=0, **IDLE)
        trainer.fit(model, shop)
        weights.append(model.state_dict())
        (measured,) = trainer.test(model, shop, verbose=False)
        metrics.append(measured["test/mrr@20"])
    assert weights[0].keys() == weights[1].keys()  # a checkpoint fits, whatever the weight
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert metrics[1] > metrics[0]  # the next bead of the ring is a rule


def test_a_trainer_counts_before_it_tests_a_loaded_model(shop, tmp_path):
    """Seen to fail with the counts made in fit alone."""
    plain = plain_bare(STAMP(shop.num_items, 8))
    head = SequentialRules(1.0)
    model = plain_bare(STAMP(shop.num_items, 8), heads=[head])
    model.load_state_dict(plain.state_dict())
    shop.prepare_data()
    batch = next(iter(shop.test_dataloader()))
    with pytest.raises(InputError, match="not counted any session"):
        model(batch)
    Trainer(**IDLE).test(model, shop, verbose=False)
    with torch.no_grad():
        expected = plain.eval()(batch) + torch.log(
            head.rules(batch) / head.rules(batch).sum(1, keepdim=True).clamp_min(1e-30) + 1e-4
        )
        torch.testing.assert_close(model.eval()(batch), expected)


@pytest.mark.parametrize("weight", [-1.0, 0.0, math.nan, math.inf])
def test_a_weight_that_is_not_above_zero_is_refused(weight):
    with pytest.raises(InputError, match="above 0"):
        SequentialRules(weight)


def test_counts_follow_their_items_into_another_catalogue():
    """Items in another order, new ones and one that is gone. Seen to fail with the counts as they were."""
    sessions = drawn_sessions(40, 9)
    before = counting(9, 1.0)
    before.read_training_sessions(make_examples(sessions))
    source = torch.tensor([3, 0, 1, 2, 9, 8, 0, 7, 6, 5])  # item 4 is gone
    change = CatalogueChange(source, 9, torch.zeros(10, dtype=torch.bool))
    now = counting(10, 1.0)
    state = {name: getattr(before, name) for name in ("start", "item", "similarity", "repeats")}
    for name, value in now.carry_over(state, change).items():
        setattr(now, name, value)
    assert (now.start.dtype, now.item.dtype) == (before.start.dtype, before.item.dtype)
    kept = [[item for item in one if item != 4] for one in sessions]
    kept = [one for one in kept if one]
    expected = before.rules(make_batch(kept))
    found = now.rules(make_batch([[int(change.number[item]) for item in one] for one in kept]))
    for column in range(10):
        item = int(source[column])
        assert torch.equal(found[:, column], expected[:, item - 1] if item else torch.zeros(len(kept)))
    assert now.carry_over({}, change) == {}  # a checkpoint holds no counts
