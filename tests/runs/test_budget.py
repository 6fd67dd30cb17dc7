"""Which sessions a budget is spent on: the order of asking, the run that it comes from, and the command."""

import math
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule

from llm4sbr import InputError, LLM4SBRWrapper, SBRModule
from llm4sbr.backbones import GRU4Rec
from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.runs.budget import (
    bare_model,
    how_many,
    in_proportion,
    least_certain_first,
    order_of_need,
    sessions_within,
)
from llm4sbr.runs.saved_run import load_run
from llm4sbr.runs.uncertainty import session_entropies
from llm4sbr.views.inference.options import Localisation, LocalModel
from llm4sbr.views.inference.sessions import session_keys
from llm4sbr.views.store import ViewStore

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ALL = ("train", "validate", "test")


def untrained(num_items=30):
    """A bare model whose scores differ from session to session."""
    torch.manual_seed(3)
    model = SBRModule(GRU4Rec(num_items, 8))
    model.backbone.embedding.weight.data.mul_(8)
    return model


class Wavering(LightningModule):
    """Its arithmetic follows from the place in the batch, as last bits do on a real device."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(31, 30))

    def forward(self, batch):
        assert not batch.target.any()
        return self.weight[batch.item_ids].sum(1) * (1 + torch.arange(len(batch.lengths)).unsqueeze(1))


def sessions_of(source, *splits):
    return {key: prefix for split in splits for key, prefix in session_keys(source, split)}


# The mathematics.


def test_equals_stand_in_the_order_of_their_content():
    """Seen to fail with the key left out of `least_certain_first`: the dictionary's order decided."""
    entropies = {bytes([n]): float(n % 3) for n in range(12)}
    forward = least_certain_first(entropies)
    assert forward == least_certain_first(dict(reversed(entropies.items())))
    assert [entropies[key] for key in forward] == [2.0] * 4 + [1.0] * 4 + [0.0] * 4
    assert forward[:4] == sorted(forward[:4])


def test_every_beginning_holds_the_same_share_of_each_split():
    """Seen to fail with the orders joined one after the other."""
    orders = [[bytes([split, n]) for n in range(size)] for split, size in enumerate((90, 10, 31))]
    mixed = in_proportion(orders)
    assert sorted(mixed) == sorted(key for order in orders for key in order)
    for count in range(len(mixed) + 1):
        for split, order in enumerate(orders):
            taken = [key for key in mixed[:count] if key[0] == split]
            assert taken == order[: len(taken)]  # the least certain of the split
            assert abs(len(taken) - count / len(mixed) * len(order)) <= 1.5


def test_a_session_of_two_splits_stands_where_it_comes_first():
    assert in_proportion([[b"a", b"b", b"c"], [b"c", b"d"]]) == [b"a", b"c", b"b", b"d"]
    assert in_proportion([[], []]) == []


@pytest.mark.parametrize(
    ("amount", "count"), [(0, 0), (0.0, 0), (1, 1), (0.25, 10), (1.0, 40), (39, 39), (5000, 40), (0.001, 0)]
)
def test_what_a_budget_pays_for(amount, count):
    assert how_many(amount, 40) == count


@pytest.mark.parametrize("amount", [-1, -0.1, 1.5, 5000.0, math.nan])
def test_a_budget_out_of_range_is_refused(amount):
    with pytest.raises(InputError, match="budget"):
        how_many(amount, 40)


# The order of asking.


def test_targets_and_the_order_of_examples_have_no_say(stubs):
    """Seen to fail with the batches made in the order of the examples."""
    source, model = stubs.FakeSource(), Wavering()
    order = order_of_need(source, model, ALL)
    assert sorted(order) == sorted(sessions_of(source, *ALL))
    draw = np.random.default_rng(0)
    for split in ALL:
        part = source.parts[split]
        rows = draw.permutation(len(part))
        source.parts[split] = replace(
            part,
            start=part.start[rows],
            end=part.end[rows],
            session=part.session[rows],
            target=draw.integers(1, 31, len(part)),
        )
    assert order_of_need(source, model, ALL) == order


def test_the_least_certain_of_every_split_come_first(stubs):
    """Seen to fail with rising entropies, and with one order over all splits."""
    source, model = stubs.FakeSource(), untrained()
    order = order_of_need(source, model, ALL)
    asked = set(order[: how_many(0.3, len(order))])
    for split in ALL:
        sessions = sessions_of(source, split)
        entropies = session_entropies(model, sessions, 30)
        # A session of two splits may come with the other one; leave those out of the claim.
        own = [k for k in sessions if sum(k in sessions_of(source, other) for other in ALL) == 1]
        inside = [entropies[key] for key in own if key in asked]
        outside = [entropies[key] for key in own if key not in asked]
        assert len(inside) == pytest.approx(0.3 * len(own), abs=2.5)
        assert min(inside) >= max(outside)


# The run that certainty comes from.


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """60 random walks over 12 items: some clicks are followed by one item, some by many."""
    folder, draw = tmp_path_factory.mktemp("shop"), random.Random(2)
    events = ["session_id,item_id,timestamp,split"]
    for session in range(60):
        item = draw.randrange(12)
        for click in range(draw.randint(2, 5)):
            part = "test" if session % 5 == 4 else "train"
            events.append(f"s{session:03d},i{item:02d},{100 * session + click},{part}")
            item = (item + 1) % 12 if item % 2 else draw.randrange(12)
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    titles = [f"i{item:02d},Bead {chr(97 + item)}" for item in range(12)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(titles) + "\n")
    return folder


def words(shop, model="llm4sbr.SBRModule"):
    return [
        *("--config", str(EXPERIMENTS / "base.yaml"), "--model", model),
        *("--data", "SessionDataModule", "--data.data_dir", str(shop), "--data.split.by", "column"),
        *("--data.cache_dir", str(shop / "cache")),
        *("--model.backbone", "GRU4Rec", "--model.backbone.embedding_dim", "8"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.max_epochs", "2", "--model.optimizer.lr", "0.05"),
    ]


@pytest.fixture(scope="module")
def run_folder(shop):
    """A bare run by the command line."""
    more = ["--trainer.logger.save_dir", str(shop / "runs"), "--trainer.default_root_dir", str(shop / "runs")]
    assert main(["fit", *words(shop), *more]) == 0
    return shop / "runs" / "llm4sbr" / "version_0"


@pytest.fixture
def data(shop):
    return SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(shop / "cache"))


def test_a_run_comes_back_with_the_weights_of_its_best_epoch(run_folder, tmp_path, monkeypatch):
    """Seen to fail without `load_state_dict`."""
    monkeypatch.chdir(tmp_path)
    saved = load_run(run_folder)
    assert type(saved.model) is SBRModule
    assert not saved.model.training
    kept = torch.load(saved.checkpoint, weights_only=True)["state_dict"]
    assert kept.keys() == saved.model.state_dict().keys()
    assert all(torch.equal(kept[name], value) for name, value in saved.model.state_dict().items())
    assert load_run(saved.checkpoint).checkpoint == saved.checkpoint
    assert not list(tmp_path.iterdir())  # looking at a run leaves nothing behind


def test_of_several_checkpoints_the_newest_counts(run_folder, tmp_path):
    """Seen to fail with the first one found."""
    folder = damaged(run_folder, tmp_path / "run", None)
    for name, age in (("best-7.ckpt", 10), ("best-3.ckpt", 5), ("best-5.ckpt", 20)):
        copy = folder / "checkpoints" / name
        copy.write_bytes((folder / "checkpoints" / "best-0.ckpt").read_bytes())
        os.utime(copy, (1e9 - age, 1e9 - age))
    (folder / "checkpoints" / "best-0.ckpt").unlink()
    assert load_run(folder).checkpoint.name == "best-3.ckpt"


def test_a_larger_budget_contains_a_smaller_one(run_folder, data):
    """Seen to fail with the chosen sessions drawn anew for each budget (a shuffle before the cut)."""
    every = sessions_within(1.0, run_folder, data, ALL)
    assert sorted(every) == sorted(sessions_of(data, *ALL))
    small, large = (sessions_within(share, run_folder, data, ALL) for share in (0.1, 0.5))
    assert 0 < len(small) < len(large) < len(every)
    assert set(small) < set(large)
    assert sessions_within(7, run_folder, data, ALL) == every[:7]


def test_a_wrapped_models_run_is_refused(shop, data, tmp_path, monkeypatch):
    """Seen to fail without the look at the class."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *words(shop, "llm4sbr.LLM4SBRWrapper"), "--trainer.max_epochs", "1"]) == 0
    (folder,) = Path("runs").glob("*/version_0")
    assert isinstance(load_run(folder).model, LLM4SBRWrapper)
    with pytest.raises(InputError, match="wrapped model"):
        bare_model(folder, data)


def test_another_catalogue_and_other_training_sessions_are_refused(shop, run_folder, tmp_path):
    """Seen to fail with either comparison left out; 12 items both times, so the weights would fit."""
    for name in ("events.csv", "items.csv"):
        (tmp_path / name).write_text((shop / name).read_text())
    items = tmp_path / "items.csv"
    items.write_text(items.read_text().replace("Bead c", "Pearl c"))
    other = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match="another catalogue"):
        bare_model(run_folder, other)
    items.write_text((shop / "items.csv").read_text())
    events = tmp_path / "events.csv"  # its test sessions trained the model
    events.write_text(
        events.read_text().replace("train", "new").replace("test", "train").replace("new", "test")
    )
    cut = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match="other sessions of this catalogue"):
        bare_model(run_folder, cut)


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def damaged(run_folder, target, harm):
    """A copy of a run, with something wrong."""
    (target / "checkpoints").mkdir(parents=True)
    checkpoint = next(run_folder.glob("checkpoints/best*.ckpt"))
    content, config = checkpoint.read_bytes(), (run_folder / "config.yaml").read_text()
    if harm == "evil":
        content = pickle.dumps({"state_dict": RunsCode()})
    elif harm == "no state":
        torch.save({"epoch": 1}, target / "other.ckpt")
        content = (target / "other.ckpt").read_bytes()
    elif harm == "cut":
        content = content[: len(content) // 2]
    elif harm == "swapped":
        config = config.replace("embedding_dim: 8", "embedding_dim: 9")
    elif harm == "renamed":
        config = config.replace("GRU4Rec", "GRU5Rec")
    elif harm == "list":
        config = "- 1\n"
    elif harm == "yaml":
        config = "model: [\n"
    elif harm == "moved":
        config = config.replace("data_dir: ", "data_dir: /nowhere")
    if harm != "no config":
        (target / "config.yaml").write_text(config)
    if harm != "no checkpoint":
        (target / "checkpoints" / "best-0.ckpt").write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("evil", "not a zip archive"),
        ("no state", "no state_dict"),
        ("cut", "best-0.ckpt: this checkpoint is truncated or damaged"),
        ("swapped", "of another model: .* in the checkpoint and .* in the model"),
        ("renamed", "that is not known"),
        ("list", "names no model and data"),
        ("yaml", "not YAML"),
        ("moved", "config.yaml: .* cannot be built again: .*no such file"),
        ("no config", "cannot be read"),
        ("no checkpoint", r"no checkpoints/best\*.ckpt"),
    ],
)
def test_a_damaged_run_is_a_named_error(run_folder, tmp_path, monkeypatch, harm, told, capsys):
    """Seen to fail with each `except` of saved_run.py left out; ``evil`` also with ``weights_only=False``."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        load_run(damaged(run_folder, tmp_path / "run", harm))
    assert not Path("was-run").exists()
    with pytest.raises(InputError, match="no such run"):
        load_run(tmp_path / "nowhere")


# The command.


@pytest.fixture
def stub_engine(stubs, monkeypatch):
    """The command with an engine and an encoder that take no time."""
    engine = stubs.StubEngine()
    monkeypatch.setattr(LocalModel, "engine", lambda *_: engine)
    monkeypatch.setattr(Localisation, "text_encoder", lambda *_: stubs.StubEncoder())
    return engine


def infer_words(shop, out, *more):
    data = ["--data", "SessionDataModule", "--data.data_dir", str(shop), "--data.split.by", "column"]
    data += ["--data.cache_dir", str(shop / "cache")]
    return ["views", "infer", *data, "--out", str(out), "--sessions.splits", "[train,validate,test]", *more]


def test_the_command_asks_about_the_chosen_sessions_alone(
    shop, run_folder, data, tmp_path, stub_engine, tiny_llm, capsys
):
    """Seen to fail with ``only`` not handed on to `infer_views`, and with it not handed to `plan_views`."""
    more = ("--sessions.bare_run", str(run_folder))
    assert main(infer_words(shop, tmp_path / "v", "--sessions.budget", "0.2", *more)) == 0
    total = len(order_of_need(data, bare_model(run_folder, data), ALL))
    chosen = how_many(0.2, total)
    shown = capsys.readouterr().out
    assert f"Budget: {chosen} of {total} distinct sessions" in shown
    assert f"{chosen} of {total} distinct sessions selected" in shown
    with ViewStore(tmp_path / "v") as store:
        spec = next(one for one in store.view_specs() if one.source == "llm")
        known = {key for answers in spec.answers for key, _ in store.answers(answers)}
    assert known == set(sessions_within(0.2, run_folder, data, ALL))
    # A larger budget asks about what is missing, no more.
    before = len(stub_engine.asked)
    assert main(infer_words(shop, tmp_path / "v", "--sessions.budget", str(chosen + 3), *more)) == 0
    assert f"{2 * chosen} answers reused" in capsys.readouterr().out
    assert len(stub_engine.asked) - before <= 6
    words = infer_words(shop, tmp_path / "w", "--sessions.budget", "2", *more, "--dry_run", "true")
    assert main([*words, "--price_out", "1e6", "--model", tiny_llm]) == 0
    told = capsys.readouterr().out
    assert "4 prompts" in told
    assert "cost: 96.00 at most" in told
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--sessions.budget", "0.1"), "go together"),
        (("--sessions.bare_run", "runs/x"), "go together"),
        (("--sessions.budget", "1.5", "--sessions.bare_run", "runs/x"), "from 0.0 to 1.0"),
        (("--sessions.budget", "5", "--sessions.bare_run", "runs/x"), "no such run"),
        (
            ("--sessions.budget", "5", "--sessions.bare_run", "runs/x", "--source", "titles"),
            "title views need none",
        ),
    ],
)
def test_the_command_refuses_a_budget_it_cannot_spend(shop, tmp_path, stub_engine, capsys, more, told):
    try:
        status = main(infer_words(shop, tmp_path / "v", *more))
    except SystemExit as stop:  # the parser exits by itself
        status = stop.code
    assert status == 1
    assert told in capsys.readouterr().err
    assert not stub_engine.asked
