"""Repeat or explore: by hand, against the mixture it is, and on shops where nobody or everybody repeats."""

import math
import random
from functools import partial

import pytest
import torch
from lightning import Trainer
from plain import plain_bare, plain_wrapped
from shops import write_shop

from llm4sbr import SBRModule
from llm4sbr.backbones import STAMP
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import RepeatExplore
from llm4sbr.testing import make_batch, make_examples

IDLE = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def trained(again=0.3, dim=4):
    torch.manual_seed(0)
    head = RepeatExplore()
    head.attach(STAMP(5, dim))
    torch.nn.init.normal_(head.gate.weight)
    head.prior.fill_(math.log(again / (1 - again)))
    return head


def test_the_share_is_counted_by_hand():
    """Of the 5 examples of [1, 2, 1, 1] and [3, 4, 5] two repeat: (2 + 1/2) against (3 + 1/2)."""
    head = RepeatExplore()
    head.read_training_sessions(make_examples([[1, 2, 1, 1], [3, 4, 5]]))
    assert head.prior.item() == pytest.approx(math.log(2.5 / 3.5))
    head.read_training_sessions(make_examples([[1, 2, 3]]))
    assert head.prior.item() == pytest.approx(math.log(0.5 / 2.5))  # what was counted before is forgotten


def test_the_share_is_counted_in_many_sessions():
    """Against one example after the other. Seen to fail with a click before the session's start counted."""
    draw = random.Random(0)
    sessions = [[draw.randint(1, 5) for _ in range(draw.randint(2, 9))] for _ in range(200)]
    examples, head = make_examples(sessions), RepeatExplore()
    again = sum(target in examples.prefix(e) for e, target in enumerate(examples.target))
    head.read_training_sessions(examples)
    assert head.prior.item() == pytest.approx(math.log((again + 0.5) / (len(examples) - again + 0.5)))
    assert 0.2 < again / len(examples) < 0.8


def test_its_softmax_is_the_mixture():
    """Padding, repeated clicks, item 1 in and not in a session. Seen to fail with padding read as item 1."""
    batch = make_batch([[1, 3, 1], [2], [5, 4, 3, 2]], padding=2)
    scores, session = 5 * torch.randn(3, 6), torch.randn(3, 4)
    head = trained()
    found = head(scores, session, batch).softmax(1)
    for row, clicked in enumerate(({1, 3}, {2}, {2, 3, 4, 5})):
        again = torch.sigmoid(head.gate(session[row]) + head.prior).item()
        for kind, share in ((clicked, again), (set(range(1, 7)) - clicked, 1 - again)):
            columns = [item - 1 for item in sorted(kind)]
            torch.testing.assert_close(found[row, columns], share * scores[row, columns].softmax(0))


def test_the_gradient_is_the_mixtures():
    """Against the formula, written out with masks."""
    batch = make_batch([[1, 3, 1], [2]], padding=1)
    clicked = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]]).bool()
    head, session = trained(), torch.randn(2, 4)
    scores = torch.randn(2, 5, requires_grad=True)
    again = head.log_odds(session)

    def softmax(mask):
        return (scores.masked_fill(~mask, -math.inf)).softmax(1)

    expected = again.sigmoid() * softmax(clicked) + (-again).sigmoid() * softmax(~clicked)
    target = torch.tensor([2, 0])
    pick = torch.arange(2), target
    (wanted,) = torch.autograd.grad(-expected[pick].log().sum(), scores, retain_graph=True)
    out = head(scores, session, batch)
    (found,) = torch.autograd.grad(torch.nn.functional.cross_entropy(out, target, reduction="sum"), scores)
    torch.testing.assert_close(found, wanted)
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_session_of_the_whole_catalogue_keeps_its_order(dtype):
    """Seen to fail with nothing left to explore counted as a sum of zero."""
    scores = torch.tensor([[0.5, 2.0, -1.0]], dtype=dtype, requires_grad=True)
    found = trained()(scores, torch.zeros(1, 4), make_batch([[3, 1, 2]]))
    assert found.tolist() == scores.float().tolist()
    found.logsumexp(1).sum().backward()
    assert scores.grad.isfinite().all()


def shop_of(path, bead):
    """A shop of sessions of five clicks; `bead` says which item a session's click is."""
    write_shop(path, sessions=60, clicks=lambda session: 5, item=bead)
    return SessionDataModule(path, split=SplitBy("column"), cache_dir=path / "cache", batch_size=8)


def share_of_clicked(model, shop):
    """The probability that the model gives to a test session's own items, on average."""
    batch = next(iter(shop.test_dataloader()))
    long = batch.lengths > 1
    with torch.no_grad():
        found = model.eval()(batch).softmax(1)
    clicked = torch.zeros_like(found, dtype=torch.bool)
    for row, (items, length) in enumerate(zip(batch.item_ids, batch.lengths, strict=True)):
        clicked[row, items[:length] - 1] = True
    return (found * clicked).sum(1)[long].mean().item()


@pytest.mark.parametrize("kind", [plain_bare, plain_wrapped])
@pytest.mark.parametrize(
    ("bead", "below", "above"),
    [
        pytest.param(lambda session, click: session + click, 0.01, 0, id="nobody repeats"),
        pytest.param(lambda session, click: session + click % 2, 1, 0.9, id="who clicks three times repeats"),
    ],
)
def test_it_learns_who_repeats(tmp_path, kind, bead, below, above):
    """In the second shop all but one of four examples repeat, and without it models give them 0.6 and 0.88.

    Seen to fail with what was learned left out, and with `P(e | s)` in the place of `P(r | s)`.
    """
    shop = shop_of(tmp_path, bead)
    torch.manual_seed(0)
    training = {"optimizer": partial(torch.optim.Adam, lr=0.03, weight_decay=1e-5), "lr_scheduler": None}
    model = kind(STAMP(shop.num_items, 8), heads=[RepeatExplore()], **training)
    Trainer(max_epochs=6, limit_val_batches=0, **IDLE).fit(model, shop)
    assert above <= share_of_clicked(model, shop) <= below


def test_a_checkpoint_has_what_was_counted(tmp_path):
    """Seen to fail with the share in a buffer that is not kept."""
    shop = shop_of(tmp_path, lambda session, click: session + click)
    model = plain_bare(STAMP(shop.num_items, 8), heads=[RepeatExplore()])
    trainer = Trainer(max_epochs=1, limit_val_batches=0, **IDLE)
    trainer.fit(model, shop)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = SBRModule.load_from_checkpoint(tmp_path / "one.ckpt")
    batch = next(iter(shop.test_dataloader()))
    assert loaded.heads[0].prior.item() == pytest.approx(math.log(0.5 / (len(shop.examples("train")) + 0.5)))
    assert torch.equal(loaded.eval()(batch), model.eval()(batch))
