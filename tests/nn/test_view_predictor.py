"""The predictor of unknown views: what it reads, learns and replaces, alone and in a wrapped model."""

import pytest
import torch
from every_backbone import OURS, make, seen
from lightning.pytorch import Trainer
from plain import plain_wrapped

from llm4sbr import LLM4SBRWrapper
from llm4sbr.backbones import SRGNN, GRU4Rec
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.carry_over import carried_state
from llm4sbr.nn.fusion import FUSIONS
from llm4sbr.nn.heads import TextScores
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.testing import make_batch
from llm4sbr.training.diagnosis import first_not_finite

SESSIONS = [[1, 2, 3], [4], [5, 5, 6], [7, 8]]
TEXT = 6


def small(predictor, **settings):
    torch.manual_seed(0)
    return plain_wrapped(SRGNN(10, 8), text_dim=TEXT, view_predictor=predictor, **settings)


def with_views(known):
    """A batch of whose sessions some are known."""
    torch.manual_seed(3)
    mask = torch.tensor(known)[:, None].expand(-1, 2)
    views = torch.randn(len(SESSIONS), 2, TEXT)
    return make_batch(SESSIONS, [2, 3, 4, 5])._replace(views=views, view_mask=mask)


def attached(**settings):
    torch.manual_seed(0)
    made = ViewPredictor(**settings)
    made.attach(8, TEXT, 2)
    return made


def test_padding_and_other_sessions_change_nothing():
    predictor, h, items = attached(), torch.randn(4, 2, 8), torch.randn(10, 8)
    whole = predictor(h, items, make_batch(SESSIONS))
    assert whole.shape == (4, 2, TEXT)
    torch.testing.assert_close(predictor(h, items, make_batch(SESSIONS, padding=3)), whole)
    torch.testing.assert_close(predictor(h[2:], items, make_batch(SESSIONS[2:])), whole[2:])


def test_the_inputs_are_the_interests_the_mean_and_the_last_item():
    """Against a loop over the sessions. Seen to fail with the first click for the last."""
    predictor, h, items = attached(), torch.randn(4, 2, 8), torch.randn(10, 8)
    found = predictor(h, items, make_batch(SESSIONS))
    for row, session in enumerate(SESSIONS):
        clicks = torch.stack([items[item - 1] for item in session])
        given = [h[row, 0], h[row, 1], clicks.mean(0), clicks[-1]]
        unit = [(one - one.mean()) / (one.var(correction=0) + 1e-5).sqrt() for one in given]
        by_hand = predictor.outer(torch.nn.functional.gelu(predictor.inner(torch.cat(unit)))).view(2, TEXT)
        torch.testing.assert_close(found[row], by_hand)


def test_loss_is_direction_and_length_of_known_views():
    predictor = attached()
    views, known = torch.randn(2, 2, TEXT), torch.tensor([[True, False], [True, True]])
    assert predictor.loss(views, views, known).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(predictor.loss(3 * views, views, known), torch.tensor(3 * 2.0**2 / 4))
    torch.testing.assert_close(predictor.loss(-views, views, known), torch.tensor(3 * 2.0 / 4))
    assert predictor.loss(views, None, torch.zeros(2, 2).bool()).item() == 0
    rows = [predictor.loss(-views[[n]], views[[n]], known[[n]]) for n in range(2)]
    torch.testing.assert_close(torch.stack(rows).mean(), predictor.loss(-views, views, known))


def test_it_says_nothing_of_a_view_that_it_has_never_seen():
    """`--views.use [short_term]` hides a view of every session."""
    predictor, nothing = attached().eval(), torch.zeros(3, 2, dtype=torch.bool)
    assert not predictor.choose(nothing).any()
    only_short = torch.tensor([[False, True]])
    predictor.loss(torch.randn(1, 2, TEXT), torch.randn(1, 2, TEXT), only_short)
    assert predictor.choose(nothing).tolist() == [[False, True]] * 3


def test_no_gradient_leaves_the_predictor_and_none_of_another_loss_enters():
    """Seen to fail without `detach` of the interests, of the items and of the prediction."""
    model, batch = small(ViewPredictor(hide=0.5), heads=[TextScores(3)]), with_views([True, False] * 2)
    model.view_predictor.learned.fill_(True)
    own = {f"view_predictor.{name}" for name, _ in model.view_predictor.named_parameters()}
    losses = model.losses(batch)
    losses["view_prediction"].backward(retain_graph=True)
    reached = {name for name, one in model.named_parameters() if one.grad is not None}
    assert reached == own
    model.zero_grad()
    (losses["loss"] - losses["view_prediction"]).backward()
    assert all(one.grad is None or not one.grad.any() for one in model.view_predictor.parameters())
    assert model.projection.weight.grad.any()
    assert model.backbone.embedding.weight.grad.any()


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_unknown_views_are_replaced_and_known_ones_are_not(fusion):
    model, batch = small(ViewPredictor(), fusion=fusion, heads=[TextScores(3)]), with_views([True, False] * 2)
    model.read_titles(torch.randn(10, TEXT), torch.ones(10, dtype=torch.bool))
    model.eval().view_predictor.learned.fill_(True)
    enhanced = model.enhance(batch)
    replaced = enhanced.prediction.replaced
    assert replaced.tolist() == [[False] * 2, [True] * 2] * 2
    assert torch.equal(enhanced.seen.views[0], batch.views[0])
    assert torch.equal(enhanced.seen.views[1], enhanced.prediction.views[1])
    assert enhanced.seen.view_mask.all()
    assert torch.equal(enhanced.mask, batch.view_mask)  # the losses read known views alone
    assert not enhanced.z[1].any()
    # The scores are those of a session whose views are what was predicted.
    by_hand = model.score_enhanced(model.enhance(enhanced.seen, predict=False))
    torch.testing.assert_close(model(batch), by_hand)
    absent = model.score_enhanced(model.enhance(batch, predict=False))
    torch.testing.assert_close(absent[0], by_hand[0])
    assert not torch.allclose(absent[1], by_hand[1])
    # Without a view in the batch, all are predicted, and alike.
    bare = batch._replace(views=None, view_mask=None)
    torch.testing.assert_close(model(bare)[1], by_hand[1])
    assert not torch.allclose(model(bare)[0], by_hand[0])


def test_known_views_are_hidden_at_random_in_training_alone():
    model, batch = small(ViewPredictor(hide=0.5)), with_views([True] * 4)
    model.view_predictor.learned.fill_(True)
    torch.manual_seed(0)
    hidden = [model.enhance(batch).prediction.replaced for _ in range(200)]
    assert all(torch.equal(one[:, 0], one[:, 1]) for one in hidden)  # all views of a session
    assert torch.stack(hidden).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert model.enhance(batch).mask.all()
    assert not model.eval().enhance(batch).prediction.replaced.any()


def test_a_model_without_it_draws_and_computes_what_it_did():
    """The predictor's layers come last, so all other weights of a seed stay the same."""
    without, with_one, batch = small(None), small(ViewPredictor(hide=0.0)), with_views([True] * 4)
    for name, weight in without.state_dict().items():
        assert torch.equal(with_one.state_dict()[name], weight)
    assert torch.equal(without(batch), with_one(batch))
    assert not hasattr(without.enhance(batch).prediction, "views")


def test_it_learns_views_that_follow_from_the_last_item():
    """The views are the mean and the last of the titles of a session; a quarter of the sessions lack them."""
    torch.manual_seed(0)
    titles = torch.nn.functional.normalize(torch.randn(21, TEXT), dim=1)
    titles[0] = 0
    draw = torch.Generator().manual_seed(1)
    sessions = [torch.randint(1, 21, (1 + n % 4,), generator=draw).tolist() for n in range(400)]
    batch = make_batch(sessions, [1 + n % 20 for n in range(400)])
    long = torch.stack([titles[session].mean(0) for session in sessions])
    views = torch.stack((2 * long, titles[[session[-1] for session in sessions]]), dim=1)
    known = (torch.arange(400) < 300)[:, None].expand(-1, 2)
    model = LLM4SBRWrapper(GRU4Rec(20, 16), text_dim=TEXT, heads=[], view_predictor=ViewPredictor(64))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.losses(batch._replace(views=views, view_mask=known))["loss"].backward()
        optimizer.step()
    found = model.eval().enhance(batch).prediction.views[300:]
    cosine = torch.nn.functional.cosine_similarity(found, views[300:], dim=-1)
    lengths = found.norm(dim=-1) / views[300:].norm(dim=-1)
    assert cosine.mean(0).min() > 0.9
    assert lengths.mean(0).tolist() == pytest.approx([1, 1], abs=0.15)


def test_numbers_that_are_not_finite_are_named():
    model, batch = small(ViewPredictor()), with_views([True] * 4)
    model.view_predictor.learned.fill_(True)
    stages = dict(model.stages(batch))
    assert stages["the predicted views"].shape == (4, 2, TEXT)
    batch = batch._replace(views=torch.full_like(batch.views, torch.nan))
    assert first_not_finite(model, batch) == "the views"
    model.view_predictor.register_forward_hook(lambda *_: torch.full((4, 2, TEXT), torch.nan))
    assert first_not_finite(model, batch) == "the predicted views"


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_backbone(name):
    model = make(name, True, view_predictor=ViewPredictor(4))
    batch = seen(SESSIONS, "masked")
    model.losses(seen(SESSIONS, "known"))["loss"].backward()
    assert model.view_predictor.inner.weight.grad.any()
    model.eval()
    predicted = model(batch)
    model.view_predictor = None
    assert not torch.allclose(model(batch), predicted)


def test_it_comes_back_from_a_checkpoint(tmp_path):
    """Seen to fail with the predictor missing from the classes that a checkpoint may name."""
    model, batch = small(ViewPredictor(5, hide=0.1)), with_views([True, False] * 2)
    model.losses(batch)
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True, max_epochs=0)
    trainer.strategy.connect(model)
    model.trainer = trainer
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = LLM4SBRWrapper.load_from_checkpoint(tmp_path / "one.ckpt")
    assert (loaded.view_predictor.hidden, loaded.view_predictor.hide) == (5, 0.1)
    assert torch.equal(loaded.eval()(batch), model.eval()(batch))
    assert loaded.enhance(batch).prediction.replaced.any()


def test_it_goes_on_with_another_catalogue_whatever_its_sizes():
    """A hidden layer of the catalogue's size holds no items. Seen to fail without `carry_over`."""
    model = small(ViewPredictor(hidden=10))
    other = Catalogue(tuple("abcdefghij"), ("",) * 10)
    before = Catalogue(tuple("abcdefghix"), ("",) * 10)
    change = CatalogueChange.between(before.id_digests, before.title_digests, other)
    state = model.state_dict()
    carried = carried_state(model, state, change)
    assert all(torch.equal(carried[name], state[name]) for name in state if "predictor" in name)


@pytest.mark.parametrize("known", [[True] * 4, [True, False, False, False], [False] * 4])
def test_losses_of_two_processes_add_up(known):
    """Each process weighs its part by its examples (`weigh`)."""
    model, batch = small(ViewPredictor(hide=0.0), alignment=Alignment(global_batch=False)), with_views(known)
    whole = model.losses(batch)["view_prediction"]
    parts = [
        SessionBatch(*(None if one is None else one[rows] for one in batch[:6]))._replace(
            graph=make_batch(SESSIONS[rows]).graph
        )
        for rows in (slice(0, 1), slice(1, 4))
    ]
    shares = [2 * 1 / 4, 2 * 3 / 4]
    together = [
        model.losses(part)["view_prediction"] * share for part, share in zip(parts, shares, strict=True)
    ]
    torch.testing.assert_close(sum(together) / 2, whole)
