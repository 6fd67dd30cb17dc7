"""Sample sessions and pictures: what is shown is what the chosen epoch's model makes of those sessions."""

import contextlib
import json
from functools import partial

import pytest
import torch
from crashes import Crash, StopAt
from letters import Letters
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from plain import plain_bare, plain_wrapped
from shops import PARTS, write_shop

from llm4sbr.backbones import SASRec
from llm4sbr.callbacks import Pictures, SampleSessions, ViewCache
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.fusion import shares
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.report.sessions import batch_of
from llm4sbr.views import infer_views
from llm4sbr.views.store import ViewStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), sessions=60, clicks=lambda s: 2 + s % 4, parts=PARTS)


def make_shop(folder):
    return SessionDataModule(
        str(folder),
        split=SplitBy(by="column"),
        batch_size=8,
        eval_batch_size=5,
        cache_dir=str(folder / "cache"),
    )


@pytest.fixture(scope="module")
def views(folder, stubs):
    with ViewStore(folder / "views") as store:
        infer_views(make_shop(folder), store, encoder=Letters(), engine=stubs.StubEngine(), progress=False)
    return str(folder / "views")


def fit(folder, views, root, *more, wrapped=True, ckpt_path=None, lr=0.05, epochs=6):
    """A rate so high that the last epoch is not the best."""
    seed_everything(2, verbose=False)
    shop = make_shop(folder)
    backbone = SASRec(shop.num_items, 8)
    rate = partial(torch.optim.Adam, lr=lr, weight_decay=1e-5)
    options = {"optimizer": rate, "lr_scheduler": None, "session_dropout": 0.3}
    model = plain_wrapped(backbone, text_dim=8, **options) if wrapped else plain_bare(backbone, **options)
    best = ModelCheckpoint(root / "best", monitor="val/mrr@20", mode="max")
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=CSVLogger(root, "run", ""), default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ViewCache(views), best, *more],
    )  # fmt: skip
    with contextlib.suppress(Crash):
        trainer.fit(model, shop, ckpt_path=ckpt_path, weights_only=True)
    return model, trainer, shop


@pytest.fixture(scope="module")
def run(folder, views, tmp_path_factory):
    """A run of which all that is shown is known, with the chosen epoch's model at its end."""
    root = tmp_path_factory.mktemp("run")
    samples, pictures = SampleSessions(count=6, top_k=3), Pictures(sample=7)
    model, trainer, shop = fit(folder, views, root, samples, pictures)
    last = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    model.load_state_dict(chosen["state_dict"])
    return model.eval(), shop, samples, pictures, root / "run", last


def test_samples_are_of_the_chosen_epoch(run, views):
    """Seen to fail with those of the last epoch."""
    model, shop, samples, _, root, last = run
    assert not all(torch.equal(value, last[name]) for name, value in model.state_dict().items())
    examples, catalogue = shop.examples("validate"), shop.catalogue
    written = json.loads((root / "samples.json").read_text())
    assert written == json.loads(json.dumps(list(samples.stories.values())))
    assert list(samples.stories) == [round(row * (len(examples) - 1) / 5) for row in range(6)]
    for row, story in samples.stories.items():
        batch = batch_of(examples, [row])
        assert story["session_id"] == examples.session_id(row)
        assert story["clicks"] == [catalogue.title(item) for item in batch.item_ids[0].tolist()]
        scores = model(batch)[0]
        target = int(batch.target[0])
        assert story["next"] == catalogue.title(target)
        assert story["rank"] == target_ranks(scores[None], batch.target).item()
        found = [catalogue.title(item + 1) for item in scores.topk(3).indices.tolist()]
        assert [item["title"] for item in story["recommendations"]] == found
        enhanced = model.enhance(batch)
        gates = enhanced.gates[0].tolist()
        parts = model.fusion.parts(enhanced.h, enhanced.z, enhanced.mask)
        best = model.backbone.item_embeddings()[scores.argmax()]
        found_shares = shares(parts, enhanced.session, best[None])[0].tolist()
        with ViewStore(views) as store:
            (spec,) = store.view_specs()
            intents = {i.view: i for i in store.intents(spec, catalogue, examples.prefix(row))}
        for gate, share, (name, view) in zip(gates, found_shares, story["views"].items(), strict=True):
            assert view["intent"] == intents[name].text
            assert view["source"] == "llm"
            assert view["gate"] == pytest.approx(gate, rel=1e-5)
            assert view["share"] == pytest.approx(share, rel=1e-4)
            assert [t["title"] for t in view["titles"]] == [catalogue.title(i) for i in intents[name].ids]


def test_pictures_are_of_the_chosen_epoch(run):
    """Ranks, lengths, gates and both spaces, against the model itself. Seen to fail with the last epoch's."""
    model, shop, _, pictures, _, _ = run
    examples = shop.examples("validate")
    batch = batch_of(examples, range(len(examples)))
    with torch.no_grad():
        enhanced, scores = model.enhance(batch), model(batch)
    look = pictures.found
    assert look.length.tolist() == batch.lengths.tolist()
    assert look.rank.tolist() == target_ranks(scores, batch.target).tolist()
    torch.testing.assert_close(look.gates, enhanced.gates)
    rows = [index - examples.first_index for index in pictures._indices]
    assert len(rows) == 7
    torch.testing.assert_close(look.spaces.h, enhanced.h[rows])
    torch.testing.assert_close(look.spaces.z, enhanced.z[rows])
    assert torch.equal(look.spaces.mask, enhanced.mask[rows])


def test_the_space_before_training_is_that_of_the_first_weights(run, folder, views):
    model, shop, _, pictures, _, _ = run
    seed_everything(2, verbose=False)
    first = plain_wrapped(SASRec(shop.num_items, 8), text_dim=8).eval()
    first.view_table = model.view_table
    rows = [index - shop.examples("validate").first_index for index in pictures._indices]
    with torch.no_grad():
        enhanced = first.enhance(batch_of(shop.examples("validate"), rows))
    torch.testing.assert_close(pictures.before.h, enhanced.h)
    torch.testing.assert_close(pictures.before.z, enhanced.z)
    assert not torch.allclose(pictures.found.spaces.h, enhanced.h)


def test_a_run_is_the_same_without_them(run, folder, views, tmp_path):
    """Seen to fail with a look before training that draws random numbers."""
    *_, last = run
    model, _, _ = fit(folder, views, tmp_path)
    assert all(torch.equal(value, last[name]) for name, value in model.state_dict().items())


def test_an_interrupted_run_shows_what_a_whole_one_does(run, folder, views, tmp_path):
    """Stopped after the best epoch. Seen to fail where a checkpoint leaves the pictures out."""
    _, _, samples, pictures, _, last = run
    path = tmp_path / "crash.ckpt"
    steps = 6 * 12  # the last step comes after the best epoch, whichever that is
    _, crashed, _ = fit(folder, views, tmp_path, SampleSessions(6, 3), Pictures(7), StopAt(steps - 1, path))
    assert crashed.global_step == steps - 1
    again = SampleSessions(6, 3), Pictures(7)
    model, trainer, _ = fit(folder, views, tmp_path, *again, ckpt_path=path)
    assert trainer.global_step == steps
    assert all(torch.equal(value, last[name]) for name, value in model.state_dict().items())
    assert again[0].stories == samples.stories
    for mine, theirs in ((again[1].before, pictures.before), (again[1].found.spaces, pictures.found.spaces)):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert torch.equal(again[1].found.rank, pictures.found.rank)


def test_a_bare_model_has_recommendations_and_lengths_alone(folder, tmp_path):
    samples, pictures = SampleSessions(4), Pictures()
    fit(folder, None, tmp_path, samples, pictures, wrapped=False, epochs=1)
    assert len(samples.stories) == 4
    assert all(story["views"] == {} and story["rank"] >= 1 for story in samples.stories.values())
    made = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert made == ["length.png", "pictures.json"]
    assert pictures.found.spaces is None


def test_hooks_are_gone_after_training_and_after_a_failure(folder, views, tmp_path):
    class Fail(Callback):
        def on_validation_batch_end(self, *_):
            raise Crash

    for more in ((), (Fail(),)):
        model, _, _ = fit(folder, views, tmp_path, SampleSessions(), Pictures(), *more, epochs=1)
        assert not model._forward_hooks
        assert not model.fusion._forward_hooks
