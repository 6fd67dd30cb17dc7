"""A Trainer goes on with a checkpoint of another catalogue: what it loads, says and refuses."""

import contextlib
import math

import pytest
import torch
from crashes import Crash, StopAt
from letters import Letters, title_views
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from plain import plain_bare, plain_wrapped
from shops import PARTS, write_shop
from torch.optim.lr_scheduler import StepLR

from llm4sbr import InputError
from llm4sbr.backbones import GCEGNN, SRGNN
from llm4sbr.callbacks import ViewCache
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import ItemTitles, RepeatExplore, SequentialRules, TextScores
from llm4sbr.training import from_checkpoint
from llm4sbr.training.checkpoint import read_checkpoint
from llm4sbr.training.schedules import CosineToEnd

TITLES = [f"Bead {number}" for number in range(9)]
TABLE = "backbone.embedding.weight"


class Seen(Callback):
    """Places in the epoch, learning rates and random numbers of the steps."""

    def __init__(self):
        self.steps, self.rates, self.examples, self.validations = [], [], [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((trainer.current_epoch, batch_idx))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.examples += batch.example_index.tolist()

    def on_validation_end(self, trainer, pl_module):
        self.validations += not trainer.sanity_checking


def shop_of(folder, titles=TITLES, *, prefix="", order=None):
    """A shop whose ids have a prefix; `order` moves items, new ones get clicks."""
    write_shop(folder, titles, sessions=40, clicks=lambda session: 3 + session % 3, parts=PARTS)
    head, *rows = (folder / "items.csv").read_text().splitlines()
    rows = [rows[place] for place in order] if order else rows
    (folder / "items.csv").write_text("\n".join([head, *(prefix + row for row in rows), ""]))
    if prefix:
        events = (folder / "events.csv").read_text()
        (folder / "events.csv").write_text(events.replace(",i0", f",{prefix}i0"))
    return SessionDataModule(
        str(folder), split=SplitBy(by="column"), batch_size=16, cache_dir=str(folder / "cache")
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return shop_of(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Three items more, and the old ones in another order."""
    order = [8, 9, 2, 1, 0, 10, 3, 4, 5, 6, 7, 11]
    return shop_of(tmp_path_factory.mktemp("grown"), [*TITLES, "Pearl a", "Pearl b", "Pearl c"], order=order)


def trainer_of(root, *callbacks, **options):
    options = {"max_epochs": 2, "accelerator": "cpu", "logger": False, **options}
    return Trainer(
        default_root_dir=root, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def bare(data, backbone=SRGNN, **options):
    seed_everything(7, verbose=False)
    return plain_bare(backbone(data.num_items, 8), **options)


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    """A bare model after an epoch, and its checkpoint."""
    root = tmp_path_factory.mktemp("trained")
    model, trainer = bare(shop), trainer_of(root, max_epochs=1)
    trainer.fit(model, shop)
    trainer.save_checkpoint(root / "one.ckpt")
    return model, trainer, root / "one.ckpt"


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(from_checkpoint, "rank_zero_info", lines.append)
    return lines


def by_id(data, rows, ids):
    """Rows of items, without the padding row, in the order of some ids."""
    return rows[[data.catalogue.index[item] for item in ids]]


def old_ids(shop):
    return shop.catalogue.item_ids


@pytest.mark.parametrize("stage", ["predict", "test", "validate"])
def test_an_evaluation_goes_on_with_new_items(shop, grown, trained, tmp_path, said, stage):
    model = bare(grown)
    fresh = model.backbone.embedding.weight.detach().clone()
    getattr(trainer_of(tmp_path), stage)(model, grown, ckpt_path=trained[2], weights_only=True)
    new, old = model.get_parameter(TABLE), trained[0].get_parameter(TABLE)
    assert torch.equal(by_id(grown, new, old_ids(shop)), old[1:])
    added = sorted(set(grown.catalogue.item_ids) - set(old_ids(shop)))
    assert torch.equal(by_id(grown, new, added), by_id(grown, fresh, added))
    assert not new[0].any()
    kept = "9 items of the checkpoint are kept, 3 are new and begin untrained"
    assert said == [f"Another catalogue: {kept}."]


def test_the_state_of_adam_follows_its_items(shop, grown, trained, tmp_path, said):
    """All epochs are done, so nothing is trained. Seen to fail with the saved state left as it was."""
    model, trainer = bare(grown), trainer_of(tmp_path, max_epochs=1)
    trainer.fit(model, grown, ckpt_path=trained[2], weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    old, new = (one.optimizers[0].state_dict()["state"] for one in (trained[1], trainer))
    for place, name in enumerate(names):
        assert new[place]["step"] == old[place]["step"] > 0
        for key in ("exp_avg", "exp_avg_sq"):
            if name == TABLE:
                assert torch.equal(by_id(grown, new[place][key], old_ids(shop)), old[place][key][1:])
                assert new[place][key][1:].any(1).sum() == 9
            else:
                assert torch.equal(new[place][key], old[place][key])
    assert said[0].endswith("; training goes on at the start of epoch 1.")


def test_training_goes_on_at_the_next_epoch(grown, trained, tmp_path):
    """With all its examples, its own shuffle and rates of its own. Seen to fail with the loops as saved."""
    seen, model = Seen(), bare(grown, lr_scheduler=CosineToEnd)
    trainer = trainer_of(tmp_path, seen, max_epochs=3)
    trainer.fit(model, grown, ckpt_path=trained[2], weights_only=True)
    count = math.ceil(len(grown.examples("train")) / 16)
    assert seen.steps == [(epoch, batch) for epoch in (1, 2) for batch in range(count)]
    assert sorted(seen.examples) == sorted(2 * list(range(len(grown.examples("train")))))
    assert trainer.global_step == trained[1].global_step + 2 * count
    half_cosine = [5e-4 * (1 + math.cos(math.pi * step / (2 * count))) for step in range(1, 2 * count)]
    assert seen.rates[: 2 * count - 1] == pytest.approx(half_cosine)


@pytest.mark.parametrize("by_steps", [False, True])
def test_an_epoch_that_was_interrupted_begins_again(shop, grown, tmp_path, by_steps, said):
    """Seen to fail with the loops as saved: the first batches of the grown data were passed over."""
    path = tmp_path / "middle.ckpt"
    with contextlib.suppress(Crash):
        trainer_of(tmp_path, StopAt(9, path)).fit(bare(shop), shop)
    saved = read_checkpoint(path)
    assert (saved["epoch"], saved["global_step"]) == (1, 9)
    count = math.ceil(len(grown.examples("train")) / 16)
    limits = {"max_epochs": -1, "max_steps": 9 + 2 * count} if by_steps else {"max_epochs": 3}
    seen = Seen()
    trainer_of(tmp_path, seen, **limits).fit(bare(grown), grown, ckpt_path=path, weights_only=True)
    assert seen.steps == [(epoch, batch) for epoch in (1, 2) for batch in range(count)]
    assert seen.validations == 2
    assert said[0].endswith("; training goes on at the start of epoch 1.")


def test_a_checkpoint_of_a_validation_has_its_epoch_behind_it(shop, grown, tmp_path):
    """That of the best epoch, as the command line writes it; its score was of other sessions.

    Seen to fail with the state of the callbacks loaded: no epoch was better than that score.
    """

    def best():
        folder = tmp_path / "best"
        return ModelCheckpoint(folder, monitor="val/mrr@20", mode="max", save_on_train_epoch_end=False)

    first, seen, again = best(), Seen(), best()
    trainer_of(tmp_path, first, max_epochs=1).fit(bare(shop), shop)
    content = torch.load(first.best_model_path, weights_only=True)
    state, high = content["callbacks"][first.state_key], torch.tensor(2.0)  # out of reach
    state.update(
        best_model_score=high, kth_value=high, best_k_models=dict.fromkeys(state["best_k_models"], high)
    )
    torch.save(content, tmp_path / "one.ckpt")
    trainer_of(tmp_path, seen, again).fit(
        bare(grown), grown, ckpt_path=tmp_path / "one.ckpt", weights_only=True
    )
    assert {epoch for epoch, _ in seen.steps} == {1}
    assert "epoch=1" in again.best_model_path


def test_the_rates_are_those_of_the_new_fit(grown, trained, tmp_path):
    """Seen to fail with the groups of the checkpoint."""
    seen = Seen()
    model = bare(grown, optimizer=lambda p: torch.optim.Adam(p, lr=0.5),
                 lr_scheduler=lambda o: StepLR(o, 1, 0.1))  # fmt: skip
    trainer_of(tmp_path, seen).fit(model, grown, ckpt_path=trained[2], weights_only=True)
    assert set(seen.rates[:-1]) == {0.5}


def test_a_second_continuation_is_exact_again(grown, trained, tmp_path):
    """The checkpoint of the grown run has its own items."""
    model, trainer = bare(grown), trainer_of(tmp_path)
    trainer.fit(model, grown, ckpt_path=trained[2], weights_only=True)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    again = bare(grown)
    trainer_of(tmp_path).predict(again, grown, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert all(torch.equal(one, again.get_parameter(name)) for name, one in model.named_parameters())


def test_a_graph_backbone_predicts_and_trains_on(shop, grown, tmp_path):
    model, trainer = bare(shop, GCEGNN), trainer_of(tmp_path, max_epochs=1)
    trainer.fit(model, shop)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    for stage in ("predict", "fit"):
        now = bare(grown, GCEGNN)
        getattr(trainer_of(tmp_path), stage)(now, grown, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
        neighbours = now.backbone.global_graph.neighbours
        added = [grown.catalogue.index[item] for item in set(grown.catalogue.item_ids) - set(old_ids(shop))]
        assert bool(neighbours[added].any()) == (stage == "fit")  # nobody clicked them before


def test_items_that_are_gone_are_dropped(shop, grown, tmp_path, said):
    model, trainer = bare(grown), trainer_of(tmp_path, max_epochs=1)
    trainer.fit(model, grown)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    now = bare(shop)
    trainer_of(tmp_path).predict(now, shop, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    rows = by_id(grown, model.get_parameter(TABLE), old_ids(shop))
    assert torch.equal(now.get_parameter(TABLE)[1:], rows)
    assert said == ["Another catalogue: 9 items of the checkpoint are kept, 3 are gone."]


# Titles.


def retitled(folder):
    return shop_of(folder, ["Bead zero", *TITLES[1:]])


def test_a_bare_model_needs_no_word_about_titles(trained, tmp_path, said):
    """It continues exactly, in the middle of an epoch, too."""
    data = retitled(tmp_path / "shop")
    model = bare(data)
    trainer_of(tmp_path).test(model, data, ckpt_path=trained[2], weights_only=True)
    assert torch.equal(model.get_parameter(TABLE), trained[0].get_parameter(TABLE))
    assert said == []


def wrapped(data):
    seed_everything(3, verbose=False)
    heads = [TextScores(3), ItemTitles(3), RepeatExplore(), SequentialRules()]
    return plain_wrapped(SRGNN(data.num_items, 8), text_dim=8, heads=heads)


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("stage", ["predict", "fit"])
def test_a_wrapped_model_goes_on(shop, grown, tmp_path, said, views, stage):
    """With every head; new items stand where their titles put them, if there are views."""
    model = wrapped(shop)
    trainer = trainer_of(tmp_path, ViewCache(str(title_views(shop, tmp_path / "one"))), max_epochs=1)
    trainer.fit(model, shop)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    store = str(title_views(grown, tmp_path / "two")) if views else None
    now = wrapped(grown)
    trainer = trainer_of(tmp_path, ViewCache(store), max_epochs=1 if stage == "fit" else 2)
    getattr(trainer, stage)(now, grown, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    added = sorted(set(grown.catalogue.item_ids) - set(old_ids(shop)))
    path = "backbone.embedding.parametrizations.weight"
    for name in (f"{path}.original", f"{path}.0.titles"):
        old, new = model.state_dict()[name], now.state_dict()[name]
        assert torch.equal(by_id(grown, new, old_ids(shop)), old[1:])
    titles = by_id(grown, now.state_dict()[f"{path}.0.titles"], added)
    assert bool(titles.any(1).all()) == views
    assert torch.equal(titles, by_id(grown, torch.cat((titles[:1], now.heads[0].titles)), added))
    assert now.catalogue_titles is None
    again = wrapped(grown)  # by a Trainer whose view cache has been filled
    trainer.predict(again, grown, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert torch.equal(again.heads[0].titles, now.heads[0].titles)
    assert len(said) == 2


@pytest.mark.parametrize("views", [True, False])
def test_a_wrapped_model_says_how_many_titles_changed(shop, tmp_path, said, views):
    """Seen to fail with the titles of the checkpoint kept although the embeddings are known."""
    model = wrapped(shop)
    trainer = trainer_of(tmp_path, ViewCache(str(title_views(shop, tmp_path / "one"))), max_epochs=1)
    trainer.fit(model, shop)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    data = retitled(tmp_path / "shop")
    store = str(title_views(data, tmp_path / "two")) if views else None
    now = wrapped(data)
    trainer_of(tmp_path, ViewCache(store)).test(now, data, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert said == ["Another catalogue: 9 items of the checkpoint are kept, 1 has another title."]
    differ = (now.heads[0].titles != model.heads[0].titles).any(1)
    assert differ.tolist() == [views] + [False] * 8


class OtherLetters(Letters):
    identity = Letters.identity.__class__("others", "2")


def test_views_that_were_made_otherwise_are_refused(shop, grown, tmp_path):
    """Seen to fail with the views of another catalogue not compared at all."""
    trainer = trainer_of(tmp_path, ViewCache(str(title_views(shop, tmp_path / "one"))), max_epochs=1)
    trainer.fit(wrapped(shop), shop)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    trainer = trainer_of(tmp_path, ViewCache(str(title_views(grown, tmp_path / "two", OtherLetters()))))
    with pytest.raises(InputError, match=r"other views.*Infer the views of this catalogue"):
        trainer.test(wrapped(grown), grown, ckpt_path=tmp_path / "one.ckpt", weights_only=True)


# Refusals.


def refused(model, data, path, root, match, stage="test"):
    with pytest.raises(InputError, match=match) as caught:
        getattr(trainer_of(root), stage)(model, data, ckpt_path=path, weights_only=True)
    assert "\n" not in str(caught.value)


def test_no_common_item_is_refused(trained, tmp_path):
    data = shop_of(tmp_path / "shop", prefix="x")
    refused(bare(data), data, trained[2], tmp_path, "no item in common")


def test_a_checkpoint_without_items_is_refused_as_before(grown, trained, tmp_path):
    content = torch.load(trained[2], weights_only=True)
    del content["llm4sbr"]["items"]
    torch.save(content, tmp_path / "old.ckpt")
    refused(bare(grown), grown, tmp_path / "old.ckpt", tmp_path, "trained on catalogue .* does not say which")


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: state.update(param_groups=[3]),
        lambda state: state.update(state=[torch.zeros(3)]),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(7, 8)),
    ],
    ids=["groups", "state", "moments"],
)
def test_an_optimizers_state_of_another_form_is_refused(grown, trained, tmp_path, harm):
    """Seen to fail with a traceback."""
    content = torch.load(trained[2], weights_only=True)
    harm(content["optimizer_states"][0])
    torch.save(content, tmp_path / "odd.ckpt")
    refused(bare(grown), grown, tmp_path / "odd.ckpt", tmp_path, "optimiser's .* cannot be", "fit")


NONE, NINE = torch.zeros(0).long(), torch.arange(9)


@pytest.mark.parametrize(
    "items",
    [
        3,
        {},
        {"ids": [1], "titles": [2]},
        {"ids": NONE, "titles": NONE},
        {"ids": NINE.float(), "titles": NINE.float()},
        {"ids": NINE, "titles": NINE[:2]},
    ],
)
def test_a_list_of_items_of_another_form_is_refused(grown, trained, tmp_path, items):
    content = torch.load(trained[2], weights_only=True)
    content["llm4sbr"]["items"] = items
    torch.save(content, tmp_path / "odd.ckpt")
    refused(bare(grown), grown, tmp_path / "odd.ckpt", tmp_path, "list of items is not valid")


def test_a_run_that_is_continued_bit_for_bit_is_refused(grown, trained, tmp_path):
    model = bare(grown)
    model.run_state.exact = True
    refused(model, grown, trained[2], tmp_path, r"same results.*--ckpt_path", "fit")


def test_a_model_of_another_size_is_refused(shop, grown, trained, tmp_path):
    refused(bare(shop), grown, trained[2], tmp_path, "the model has 9 items, the data module 12")


def test_sharded_weights_are_refused(grown, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)
    refused(bare(grown), grown, trained[2], tmp_path, "sharded weights")


def test_a_million_items_stay_small(tmp_path):
    from llm4sbr.contracts.catalogue import Catalogue
    from llm4sbr.training.run_state import RunState

    many = Catalogue(tuple(f"item-{n}" for n in range(100_000)), ("",) * 100_000)
    state = RunState().collect(many, {}, torch.device("cpu"))
    torch.save(state["items"], tmp_path / "items")
    assert (tmp_path / "items").stat().st_size < 17 * 100_000
    assert torch.load(tmp_path / "items", weights_only=True).keys() == {"ids", "titles"}
