"""`llm4sbr export` of a run on disk: a recommender gives the numbers of `llm4sbr predict`."""

import json

import polars as pl
import pytest
import torch
from scripts import EXPERIMENTS
from shops import PARTS, SOAPS, write_shop
from views_stubs import StubEncoder, StubEngine

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.contracts.examples import SPLITS
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.heads import RepeatExplore
from llm4sbr.runs.export import export
from llm4sbr.serving import Recommender
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.inference.plan import Selection
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import write_keys

DIM = 8  # of the texts
LONGEST = 4  # clicks that the models read; sessions have up to 6
BARE_HEADS = ("RepeatExplore", "SequentialRules")
EVERY_HEAD = ("ItemTitles", "TextScores", *BARE_HEADS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A shop, and stores with views: of an LLM for some sessions, in two forms, and of titles alone."""
    folder = tmp_path_factory.mktemp("place")
    write_shop(
        folder / "shop", SOAPS, sessions=60, parts=PARTS, clicks=lambda session: 2 + session % 5,
        item=lambda session, click: session * 5 + click * (1 + session % 3),
    )  # fmt: skip
    for name, source, r in (("llm", "llm", 3), ("dense", "llm", 0), ("titles", "titles", 3)):
        with ViewStore(folder / name) as store:
            infer_views(
                data(folder), store, encoder=StubEncoder(dim=DIM), engine=StubEngine(), view_source=source,
                r=r, sessions=Selection(limit=30), progress=False,
            )  # fmt: skip
    return folder


def data(folder, max_length=LONGEST):
    split = SplitBy(by="column")
    return SessionDataModule(
        str(folder / "shop"), split=split, max_length=max_length, cache_dir=str(folder / "cache")
    )


def words(place, command, backbone, heads, *more, wrapped=True):
    kind = ("--model.text_dim", str(DIM)) if wrapped else ()
    named = [word for head in heads for word in ("--model.heads+", head)]
    return [
        command, "--config", str(EXPERIMENTS / "base.yaml"),
        "--data", str(place / "shop" / "data.yaml"), "--data.max_length", str(LONGEST),
        "--model", "llm4sbr.LLM4SBRWrapper" if wrapped else "llm4sbr.SBRModule", *kind,
        "--model.backbone", backbone, "--model.backbone.embedding_dim", "8", *named,
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--trainer.max_epochs", "2", *more,
    ]  # fmt: skip


def whole_sessions(place):
    """Clicks of the sessions of `predict` by the shop's ids, longer than what a model reads."""
    source = data(place, max_length=50)
    names = source.catalogue.item_ids
    return [[names[item - 1] for item in prefix] for prefix in source.examples("predict").prefixes()]


CASES = {
    "bare": ("SRGNN", BARE_HEADS, (), {"absent"}),
    "without views": ("GRU4Rec", EVERY_HEAD, (), {"absent"}),
    "known and absent": ("GRU4Rec", EVERY_HEAD, ("--views.store", "llm"), {"known", "absent"}),
    "known and titles": (
        "SASRec", EVERY_HEAD, ("--views.store", "llm", "--views.fallback", "titles", "--views.r", "2"),
        {"known", "titles"},
    ),
    "one view of two": (
        "SRGNN", EVERY_HEAD, ("--views.store", "llm", "--views.use", "[short_term]"), {"known", "absent"},
    ),
    "known and predicted": (
        "GRU4Rec", EVERY_HEAD,
        (
            "--views.store", "llm", "--model.view_predictor", "ViewPredictor",
            "--model.view_predictor.hide", "0.5",
        ),
        {"known", "predicted"},
    ),
    "vectors": ("SRGNN", EVERY_HEAD, ("--views.store", "dense"), {"known", "absent"}),
    "titles": ("SASRec", EVERY_HEAD, ("--views.store", "titles"), {"known"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_predict(place, case, tmp_path, monkeypatch, capsys):
    """All items of every session. Seen to fail without the fallback's norms, and with sessions not cut."""
    backbone, heads, views, states = CASES[case]
    monkeypatch.chdir(tmp_path)
    views = [str(place / word) if at == 1 else word for at, word in enumerate(views)]
    options = {"wrapped": case != "bare"}
    assert main(words(place, "fit", backbone, heads, *views, **options)) == 0
    assert main(words(place, "predict", backbone, heads, *views, **options)) == 0
    (run,) = tmp_path.glob("runs/*/version_0")
    assert main(["export", str(run), "--out", "bundle"]) == 0
    assert (
        f"llm4sbr recommend bundle --session {data(place).catalogue.item_ids[0]}" in capsys.readouterr().out
    )
    served = Recommender.load("bundle")
    table = pl.read_parquet("recommendations.parquet")
    sessions = whole_sessions(place)
    assert max(map(len, sessions)) > LONGEST
    found = served.recommend(sessions)
    assert len(found) == len(table)
    for one, (items, scores) in zip(found, table.select("item_ids", "scores").iter_rows(), strict=True):
        assert dict(zip(one.item_ids, one.scores, strict=True)) == pytest.approx(
            dict(zip(items, scores, strict=True)), abs=1e-5
        )
    assert {one.view for one in found} == states
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["metrics"] == json.loads((run / "summary.json").read_text())
    assert manifest["max_length"] == LONGEST
    assert (manifest["encoder"].get("name"), bool(manifest["views"])) == (
        ("bag", True) if views else (None, False)
    )


@pytest.fixture(scope="module")
def wrapped_run(place):
    """A run of a wrapped model with views of an LLM."""
    root = place / "wrapped"
    logs = ("--trainer.default_root_dir", str(root), "--trainer.logger.init_args.save_dir", str(root))
    store = ("--views.store", str(place / "llm"))
    assert main(words(place, "fit", "SRGNN", ("ItemTitles", "RepeatExplore"), *store, *logs)) == 0
    (run,) = root.glob("*/version_0")
    return run


def test_only_the_views_that_the_run_used_are_exported(place, wrapped_run, tmp_path):
    """`--views.only` hides the others from the model. Seen to fail with all of them in the bundle."""
    source = data(place)
    with ViewStore(place / "llm") as store:
        keys = sorted(store.localised_keys(store.view_specs()[0]))
    write_keys(tmp_path / "only", keys[:7])
    run = changed_copy(wrapped_run, tmp_path / "run", "only: null", f"only: {tmp_path / 'only'}")
    export(str(run), str(tmp_path / "bundle"))
    served = Recommender.load(tmp_path / "bundle")
    assert served.manifest.views.sessions == 7
    for split in SPLITS:
        for prefix in source.examples(split).prefixes():
            known = source.catalogue.session_key(prefix) in keys[:7]
            found = served.recommend([[source.catalogue.item_ids[item - 1] for item in prefix]])[0]
            assert found.view == ("known" if known else "absent")


def changed_copy(run, target, old, new):
    import shutil

    shutil.copytree(run, target)
    config = target / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    return target


def test_views_can_be_left_out(wrapped_run, tmp_path):
    export(str(wrapped_run), str(tmp_path / "bundle"), views=False)
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        "catalogue.parquet", "manifest.json", "weights.safetensors",
    ]  # fmt: skip
    assert Recommender.load(tmp_path / "bundle").recommend([["i01"]])[0].view == "absent"


def test_another_checkpoint_of_the_run(wrapped_run, tmp_path):
    """Seen to fail with the best one exported, and with its metrics."""
    (best,) = wrapped_run.glob("checkpoints/best*.ckpt")
    other = torch.load(best, weights_only=True)
    other["state_dict"]["fusion.gate"] += 1
    torch.save(other, tmp_path / "other.ckpt")
    export(str(wrapped_run), str(tmp_path / "bundle"), str(tmp_path / "other.ckpt"))
    served = Recommender.load(tmp_path / "bundle")
    assert torch.equal(served.model.fusion.gate, other["state_dict"]["fusion.gate"])
    assert (served.manifest.metrics, served.manifest.origin["checkpoint"]) == ({}, "other.ckpt")


def test_a_run_whose_views_are_gone_says_so(wrapped_run, tmp_path):
    run = changed_copy(wrapped_run, tmp_path / "run", "/llm\n", "/lost\n")
    with pytest.raises(InputError, match="there is no view store here"):
        export(str(run), str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_scores_differently_gets_no_name(wrapped_run, tmp_path, monkeypatch):
    """State outside tensors is noticed, whoever's part has it."""
    forward = RepeatExplore.forward

    def counting(self, scores, *given):
        self.calls = getattr(self, "calls", 0) + 1
        return forward(self, scores, *given) + 0.01 * self.calls

    monkeypatch.setattr(RepeatExplore, "forward", counting)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InputError, match="score differently than the run"):
        calls_apart(wrapped_run, tmp_path / "bundle")
    assert list((tmp_path / "bundle").iterdir()) == []


def calls_apart(run, out):
    """Export with a head that has been called once more in the run than in the bundle."""
    from llm4sbr.runs import export as module

    load = module.load_run

    def loaded(*given):
        found = load(*given)
        for head in found.model.score_heads():
            head.calls = 5
        return found

    module.load_run = loaded
    try:
        export(str(run), str(out))
    finally:
        module.load_run = load


def test_no_run_is_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nothing"), "--out", str(tmp_path / "bundle")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"llm4sbr: error: {tmp_path / 'nothing'}: there is no such run.")
    assert len(error.splitlines()) == 1
