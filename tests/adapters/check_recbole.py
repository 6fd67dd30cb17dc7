"""RecBole's models through the adapter against RecBole itself. Run by experiments/recbole_check.py.

Not collected by a normal run: RecBole and old numpy live in environments of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import plain_bare, plain_wrapped

from llm4sbr import InputError
from llm4sbr.adapters.recbole import RecBoleBackbone
from llm4sbr.adapters.recbole_models import Settings, build
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.nn.carry_over import carried_state
from llm4sbr.testing import assert_backbone, make_batch

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WIDTH, V = 12, 30
# Small, and each with the options that change how it is built.
MODELS = {
    "SASRec": {"hidden_size": 16, "inner_size": 32},
    "GRU4Rec": {"embedding_size": 16, "hidden_size": 24},
    "NARM": {"embedding_size": 16, "hidden_size": 24},
    "STAMP": {"embedding_size": 16},
    "SRGNN": {"embedding_size": 16, "step": 2},
    "GCSAN": {"hidden_size": 16, "inner_size": 32},
    "CORE": {"embedding_size": 16, "inner_size": 32},
    "CORE ave": {"embedding_size": 16, "dnn_type": "ave"},
    "BERT4Rec": {"hidden_size": 16, "inner_size": 32},
    "LightSANs": {"hidden_size": 16, "inner_size": 32},
    "SINE": {"embedding_size": 16},
    "NextItNet": {"embedding_size": 16},
    "FEARec": {"hidden_size": 16, "inner_size": 32},
}
REFUSED = {
    "Caser": "forward reads user",
    "FOSSIL": "forward reads seq_item, seq_item_len, user",
    "HGN": "forward reads seq_item, user",
    "HRM": "forward reads seq_item, user",
    "NPE": "forward reads seq_item, user",
    "SHAN": "forward reads seq_item, user",
    "TransRec": "forward reads user",
    "FPMC": "no item_embedding",
    "RepeatNet": "no item_embedding",
    "GRU4RecCPR": "one vector per session",
    "SASRecCPR": "one vector per session",
    "DIN": "get_user_feature",
    "DIEN": "get_user_feature",
    "GRU4RecF": "get_item_feature",
    "SASRecF": "field2type",
    "FDSA": "get_item_feature",
    "S3Rec": "get_item_feature",
    "GRU4RecKG": "get_preload_weight",
    "KSR": "get_preload_weight",
}
SESSIONS = [[1], [V, 2], [5, 5, 5], [3, 4, 3, 6, 4], list(range(1, WIDTH + 1)), [*range(20, 1, -1), V]]
numpy_1 = pytest.mark.skipif(np.__version__ >= "2", reason="RecBole's Config and Dataset need numpy 1")


@pytest.fixture(scope="session")
def table():
    """What was found of every model; left behind for the script that runs this."""
    rows = {}
    yield rows
    if "RECBOLE_TABLE" in os.environ:
        packages = ("recbole", "torch", "numpy", "pandas", "lightning", "llm4sbr")
        told = {"versions": {name: version(name) for name in packages}}
        told["models"] = [{"model": name, **row} for name, row in rows.items()]
        Path(os.environ["RECBOLE_TABLE"]).write_text(json.dumps(told))


@pytest.fixture(params=list(MODELS))
def name(request):
    return request.param


def make(name, num_items=V):
    config = {**MODELS[name], "MAX_ITEM_LIST_LENGTH": WIDTH}
    return RecBoleBackbone(num_items, name.split()[0], config)


def shake(model):
    """Weights far from their start, where small ones and zeros would hide a difference."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)


def their_scores(model, sessions, width):
    """RecBole's own scores of sessions laid out by hand, without its column for padding."""
    from recbole.data.interaction import Interaction

    rows = [session[-width:] for session in sessions]
    item_seq = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    interaction = Interaction({model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: lengths})
    return model.full_sort_predict(interaction)[:, 1:]


def difference(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_scores_are_recboles(name, table):
    backbone = make(name).eval()
    shake(backbone.module)
    with torch.no_grad():
        theirs = their_scores(backbone.module, SESSIONS, WIDTH)
        found = difference(backbone(make_batch(SESSIONS)), theirs)
    assert theirs.shape == (len(SESSIONS), V)
    assert theirs.std(0).min() > 0 or name == "BERT4Rec"
    table.setdefault(name, {})["scores"] = f"{found:.0e}" if found else "the same"
    assert found < 1e-5


def test_contract(name, table):
    table.setdefault(name, {})["contract"] = "no"
    assert_backbone(lambda num_items: make(name, num_items))
    table[name]["contract"] = "kept"


def test_it_goes_on_with_other_items(name):
    """In another order and beside new ones. Seen to fail with BERT4Rec's bias left out of `item_rows`."""
    ids = [str(number) for number in range(V)]
    old, grown = Catalogue(tuple(ids), ("",) * V), Catalogue(("x", *ids[::-1], "y"), ("",) * (V + 2))
    change = CatalogueChange.between(old.id_digests, old.title_digests, grown)
    before, now = (plain_bare(make(name, items), scorer=None).eval() for items in (V, V + 2))
    shake(before)
    now.load_state_dict(carried_state(now, before.state_dict(), change))
    moved = [[int(change.number[item]) for item in session] for session in SESSIONS]
    with torch.no_grad():
        scores = now(make_batch(moved))[:, change.number[1:] - 1]
        assert difference(scores, before(make_batch(SESSIONS))) < 1e-5


@torch.no_grad()
def recommendation_loss(module, batch):
    losses = module.eval().losses(batch)
    return float(losses.get("rec_loss", losses["loss"]))


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_it_trains(name, wrapped, table):
    torch.manual_seed(0)
    backbone = make(name, 12)
    batch = make_batch([[1, 2], [3], [4, 5, 6], [7, 8, 7], [2, 1]], target=[3, 4, 7, 8, 9])
    if wrapped:
        batch = batch._replace(views=torch.randn(5, 2, 8))
    module = plain_wrapped(backbone, text_dim=8) if wrapped else plain_bare(backbone)
    before = recommendation_loss(module, batch)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    module.train()
    for _ in range(60):
        optimizer.zero_grad()
        module.losses(batch)["loss"].backward()
        optimizer.step()
    after = recommendation_loss(module, batch)
    table.setdefault(name, {})[f"{'wrapped' if wrapped else 'bare'} loss"] = f"{before:.2f} -> {after:.2f}"
    assert after < 0.6 * before


@pytest.mark.parametrize("model", list(REFUSED))
def test_models_that_need_more_than_clicks_are_refused(model):
    with pytest.raises(InputError, match=REFUSED[model]):
        RecBoleBackbone(V, model)


def test_every_sequential_model_is_either_read_or_refused():
    import recbole.model.sequential_recommender as models

    every = {key for key, value in vars(models).items() if isinstance(value, type)}
    assert every == {name.split()[0] for name in MODELS} | set(REFUSED)


def test_a_typing_error_in_an_option_is_found():
    with pytest.raises(InputError, match=r"does not read hiden_size.*hidden_size"):
        RecBoleBackbone(V, "SASRec", {"hiden_size": 16})
    with pytest.raises(InputError, match="does not read embedding_size"):
        RecBoleBackbone(V, "SASRec", {"embedding_size": 16})


def test_recboles_anomaly_detection_stays_off():
    program = (
        "import torch; from llm4sbr.adapters.recbole import RecBoleBackbone; RecBoleBackbone(9); "
        "import recbole.model.sequential_recommender; print(torch.is_anomaly_enabled())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize("module", ["llm4sbr.SBRModule", "llm4sbr.LLM4SBRWrapper"])
def test_the_command_line_names_it(tmp_path_factory, module, command):
    folder = tmp_path_factory.getbasetemp() / module
    folder.mkdir(exist_ok=True)
    events = ["session_id,item_id,timestamp,split"]
    for session in range(40):
        part = "test" if session % 5 == 4 else "train"
        events += [f"s{session},i{(session + click) % 9},{click},{part}" for click in range(3)]
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    items = ["item_id,title", *(f"i{k},Bead {k}" for k in range(9))]
    (folder / "items.csv").write_text("\n".join(items) + "\n")
    words = [
        *(sys.executable, "-m", "llm4sbr", command, "--config", str(EXPERIMENTS / "base.yaml")),
        *("--model", module),
        *(
            "--model.backbone",
            "llm4sbr.adapters.recbole.RecBoleBackbone",
            "--model.backbone.model",
            "GRU4Rec",
        ),
        *("--model.backbone.config", "{embedding_size: 16, MAX_ITEM_LIST_LENGTH: 5}"),
        *("--data", "SessionDataModule", "--data.data_dir", str(folder), "--data.split.by", "column"),
        *("--data.cache_dir", str(folder / "cache"), "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"),
    ]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command == "fit" or "test/mrr@20" in done.stdout


@pytest.fixture(scope="module")
def pipeline():
    """RecBole's own road to a model trained for a few steps: its Config, its ml-100k, its loaders."""
    made = {}

    def run(model, options):
        if model in made:
            return made[model]
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, init_seed

        asked = {**options, "MAX_ITEM_LIST_LENGTH": WIDTH, "train_neg_sample_args": None, "use_gpu": False}
        asked |= {"user_inter_num_interval": "[20,40]", "eval_batch_size": 64, "train_batch_size": 128}
        config = Config(model=model, dataset="ml-100k", config_dict=asked)
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        train, _, _ = data_preparation(config, dataset)
        net = get_model(model)(config, train.dataset)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _, interaction in zip(range(20), train, strict=False):
            optimizer.zero_grad()
            net.calculate_loss(interaction).backward()
            optimizer.step()
        interaction = next(iter(train))  # test sessions are all longer than the models read
        made[model] = config, dataset, net.eval(), interaction
        return made[model]

    argv, sys.argv = sys.argv, ["recbole"]  # Config reads it
    yield run
    sys.argv = argv


def sessions_of(model, interaction):
    rows = zip(interaction[model.ITEM_SEQ].tolist(), interaction[model.ITEM_SEQ_LEN].tolist(), strict=True)
    return [row[:length] for row, length in rows]


@numpy_1
@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "NARM", "STAMP", "SRGNN", "CORE", "LightSANs"])
def test_a_model_of_recboles_pipeline(model, pipeline):
    """Its data, config and training; then the same weights in an instance and in a model named here."""
    _, dataset, net, interaction = pipeline(model, MODELS[model])
    num_items = dataset.num("item_id") - 1
    batch = make_batch(sessions_of(net, interaction))
    assert len(set(batch.lengths.tolist())) > 3
    with torch.no_grad():
        theirs = net.full_sort_predict(interaction)[:, 1:]
        assert difference(RecBoleBackbone(num_items, net).eval()(batch), theirs) < 1e-5
        named = RecBoleBackbone(num_items, model, {**MODELS[model], "MAX_ITEM_LIST_LENGTH": WIDTH}).eval()
        assert difference(named(batch), theirs) > 1e-2
        named.module.load_state_dict(net.state_dict())
        assert difference(named(batch), theirs) < 1e-5


@numpy_1
@pytest.mark.parametrize("model", ["SASRec", "CORE", "GRU4Rec"])
def test_options_are_those_of_recboles_config(model, pipeline):
    config, *_ = pipeline(model, MODELS[model])
    ours = Settings.of(model, {**MODELS[model], "MAX_ITEM_LIST_LENGTH": WIDTH})
    build(5, model, ours)
    asked = ours.read_options - {"device"}
    assert len(asked) > 8
    assert {key: ours.get(key) for key in asked} == {key: config[key] for key in asked}


@numpy_1
@pytest.mark.parametrize("model", ["SASRecF", "GRU4RecF"])
def test_an_instance_with_item_features(model, pipeline):
    options = {"selected_features": ["class"], "load_col": {"inter": ["user_id", "item_id", "timestamp"],
                                                            "item": ["item_id", "class"]}}  # fmt: skip
    _, dataset, net, interaction = pipeline(model, options)
    backbone = RecBoleBackbone(dataset.num("item_id") - 1, net).eval()
    with torch.no_grad():
        ours, theirs = backbone(make_batch(sessions_of(net, interaction))), net.full_sort_predict(interaction)
    assert difference(ours, theirs[:, 1:]) < 1e-5
