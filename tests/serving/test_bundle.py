"""A bundle on disk: whole or not there, and in whatever way it is damaged, refused in one line."""

import json

import polars as pl
import pytest
import torch
from bundles import CATALOGUE, SPEC, bundle, edited, raw, trained
from every_backbone import ITEMS
from safetensors.torch import load_file, save_file

from llm4sbr import InputError, ModuleBackbone, SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.nn.heads import ScoreHead
from llm4sbr.serving import Recommender
from llm4sbr.serving.bundle import Content, write_bundle
from llm4sbr.serving.manifest import CATALOGUE as TABLE
from llm4sbr.serving.manifest import MANIFEST, TITLES, VIEWS, WEIGHTS, Manifest
from llm4sbr.serving.model import build_model, serving_state

FILES = [MANIFEST, WEIGHTS, TABLE, TITLES, VIEWS]


@pytest.fixture
def folder(tmp_path):
    return bundle(tmp_path / "bundle", trained(), spec=SPEC)


def refusal(folder, **options):
    """The error, which is one line and names the bundle."""
    with pytest.raises(InputError) as refused:
        Recommender.load(folder, **options)
    assert len(str(refused.value).splitlines()) == 1
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_it_holds_no_pickle_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert json.loads((folder / MANIFEST).read_text())["model"] == trained().described()
    assert pl.read_parquet(folder / TABLE)["item_id"].to_list() == list(CATALOGUE.item_ids)
    for name in (WEIGHTS, TITLES, VIEWS):
        assert load_file(folder / name)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(folder, name, check):
    (folder / name).unlink()
    said = refusal(folder, check=check)
    assert ("no bundle here" if name == MANIFEST else f"{name}: this file of the bundle is missing") in said


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(folder, name, kept, check):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    assert ("not JSON" if name == MANIFEST else "truncated or damaged") in refusal(folder, check=check)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(folder, name, place):
    """Seen to fail with the manifest's own checksum not compared."""
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 4
    (folder / name).write_bytes(content)
    said = refusal(folder)
    assert any(
        part in said for part in ("damaged", "checksum", "not the manifest of a bundle", "another format")
    )


@pytest.mark.parametrize("name", [WEIGHTS, TABLE, TITLES, VIEWS])
def test_rubbish_that_is_signed_as_right(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    (folder / name).write_bytes(content)
    edited(folder)
    assert "cannot be read" in refusal(folder)


def test_a_panic_of_the_parquet_reader(folder, monkeypatch):
    """Of 1,500 files with some random bytes, eight made polars panic, and a panic is no `Exception`."""

    def panic(*given, **options):
        raise pl.exceptions.PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(pl, "read_parquet", panic)
    assert "catalogue.parquet: this file of the bundle cannot be read" in refusal(folder)


def of_backbone(**fields):
    model = trained().described()
    model["init_args"]["backbone"] = model["init_args"]["backbone"] | fields
    return model


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"format": "other"}, "not the manifest of a bundle"),
        ({"version": 2}, "another format"),
        ({"version": "1"}, "another format"),
        ({"num_items": ITEMS + 1}, "is not the bundle's"),
        ({"num_items": -1}, "lacks a field"),
        ({"num_items": True}, "lacks a field"),
        ({"catalogue": "0" * 32}, "is not the bundle's"),
        ({"max_length": 0}, "lacks a field"),
        ({"max_length": "5"}, "lacks a field"),
        ({"surplus": 1}, "lacks a field"),
        ({"model": []}, "lacks a field"),
        ({"model": {}}, "only SBRModule and LLM4SBRWrapper"),
        ({"model": {"class_path": "os.system", "init_args": {}}}, "only SBRModule and LLM4SBRWrapper"),
        ({"model": {"class_path": trained().described()["class_path"], "init_args": {}}}, "lacks backbone"),
        ({"model": of_backbone(class_path="subprocess.Popen")}, "not registered"),
        ({"model": of_backbone(class_path="llm4sbr.backbones.sequence.SequenceBackbone")}, "not registered"),
        (
            {"model": of_backbone(class_path="llm4sbr.nn.heads.text_scores.TextScores", init_args={})},
            "backbone must be a SessionBackbone",
        ),
        ({"model": of_backbone(init_args={"num_items": ITEMS, "rubbish": 1})}, "cannot be built"),
        ({"model": of_backbone(init_args={"num_items": ITEMS, "embedding_dim": 1 << 50})}, "cannot be built"),
        (
            {"model": of_backbone(init_args={"num_items": ITEMS, "embedding_dim": -1})},
            "embedding_dim must be",
        ),
        ({"model": of_backbone(init_args={"num_items": ITEMS, "embedding_dim": 4})}, "do not fit the model"),
        ({"model": of_backbone(init_args={"num_items": ITEMS + 1, "embedding_dim": 8})}, "12 items"),
        ({"views": {"names": []}}, "lacks a field"),
        ({"views": {"names": ["a", "b"], "source": "net", "used": []}}, "lacks a field"),
        ({"views": {"names": ["a"], "source": "llm", "used": ["a"]}}, "another shape"),
        ({"views": {"names": ["a", "b"], "source": "llm", "used": ["c"]}}, "no such view"),
    ],
)
def test_a_manifest_of_somebody_who_signs_it(folder, fields, problem):
    edited(folder, **fields)
    with pytest.raises(InputError, match=problem) as refused:
        Recommender.load(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_a_manifest_names_no_file_elsewhere(folder, tmp_path):
    """Seen to fail with any name taken."""
    (tmp_path / "secret").write_text("x")
    content = json.loads((folder / MANIFEST).read_text())
    edited(folder, files={**content["files"], "../secret": {}})
    assert "lacks a field" in refusal(folder)


def test_a_manifest_nested_beyond_reason(folder):
    (folder / MANIFEST).write_text("[" * 100_000)
    assert "not JSON" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: w["backbone.embedding.parametrizations.weight.original"].fill_(torch.nan), "not finite"),
        (lambda w: w["fusion.gate"].fill_(torch.inf), "not finite"),
        (lambda w: w.pop("fusion.gate"), "the model has fusion.gate, the bundle does not"),
        (lambda w: w.update(more=torch.zeros(1)), "the bundle has more, the model does not"),
        (lambda w: w.update({"fusion.gate": torch.zeros(3)}), "has the shape"),
    ],
)
def test_weights_that_are_signed_as_right(folder, change, problem):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)
    edited(folder)
    assert problem in refusal(folder)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (TITLES, lambda t: t.pop("mask"), "not the title embeddings"),
        (TITLES, lambda t: t.update(titles=t["titles"][:-1]), "not the title embeddings"),
        (TITLES, lambda t: t.update(titles=t["titles"][:, :-1].contiguous()), "do not fit the model"),
        (TITLES, lambda t: t["titles"].fill_(torch.nan), "not finite"),
        (VIEWS, lambda t: t.pop("keys"), "lack their keys"),
        (VIEWS, lambda t: t.pop("ids"), "lack their keys"),
        (VIEWS, lambda t: t["ids"].fill_(ITEMS + 1), "beyond the catalogue"),
        (VIEWS, lambda t: t["weights"].fill_(torch.inf), "not finite"),
        (VIEWS, lambda t: t.update(keys=t["keys"].flip(0).contiguous()), "not sorted"),
        (VIEWS, lambda t: t.update(keys=t["keys"][:1].contiguous()), "another shape"),
    ],
)
def test_titles_and_views_that_are_signed_as_right(folder, name, change, problem):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)
    edited(folder)
    with pytest.raises(InputError, match=problem):
        Recommender.load(folder)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (lambda t: t[:-1], "is not the bundle's"),
        (lambda t: t.reverse(), "is not the bundle's"),
        (lambda t: t.with_columns(pl.lit("x").alias("item_id")), "duplicate item id"),
        (lambda t: t.with_columns(pl.lit(None, pl.String).alias("title")), "another type, or an empty cell"),
        (lambda t: t.with_columns(pl.lit(1).alias("title")), "another type"),
        (lambda t: t.drop("title"), "cannot be read"),
    ],
)
def test_a_catalogue_that_is_signed_as_right(folder, rows, problem):
    rows(pl.read_parquet(folder / TABLE)).write_parquet(folder / TABLE)
    edited(folder)
    assert problem in refusal(folder)


def test_without_the_check_a_changed_file_of_the_same_size_opens(folder):
    """What `check=False` gives up: `test_a_flipped_bit`."""
    weights = load_file(folder / WEIGHTS)
    weights["fusion.gate"] += 1
    save_file(weights, folder / WEIGHTS)
    assert "damaged" in refusal(folder)
    Recommender.load(folder, check=False)


def test_a_bundle_is_replaced_only_by_a_whole_one(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(made):
        assert Recommender.load(made).recommend(raw([[1]]))  # it is whole, and has no name yet
        raise InputError("it scores differently")

    model = trained("GRU4Rec", wrapped=False)
    content = Content(serving_state(model, build_model(model.described())), CATALOGUE, None, None)
    manifest = Manifest(model.described(), ITEMS, CATALOGUE.fingerprint, 5)
    with pytest.raises(InputError, match="scores differently"):
        write_bundle(folder, manifest, content, fail)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_bundle(folder, manifest, content)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, WEIGHTS, TABLE])
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    """Seen to fail with the folder's files gone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="no bundle, so it is not replaced"):
        bundle(tmp_path / "home", trained())
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


class Mine(SRGNN):
    """A backbone that nobody registered."""


class Scattered(ScoreHead):
    """A head whose state is more than tensors."""

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(ITEMS + 1, 4, padding_idx=0)


class Other(SBRModule):
    """A model with a forward pass of its own, perhaps."""


def adapter():
    return ModuleBackbone(ITEMS, Mean(), lambda module, batch: module.items(batch.item_ids).mean(1), "items")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: SBRModule(Mine(ITEMS, 8)), "not registered.*Install the plug-in"),
        (lambda: SBRModule(SRGNN(ITEMS, 8), heads=[Scattered()]), "not registered"),
        (lambda: SBRModule(adapter()), "the backbone cannot be built again from plain values|not registered"),
        (lambda: Other(SRGNN(ITEMS, 8)), "only SBRModule and LLM4SBRWrapper"),
    ],
)
def test_what_cannot_be_built_again_is_refused_in_one_line(make, problem, tmp_path):
    with pytest.raises(InputError, match=problem) as refused:
        bundle(tmp_path / "bundle", make())
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


def test_a_class_of_ones_own_is_built_if_it_is_given(tmp_path):
    model = SBRModule(Mine(ITEMS, 8)).eval()
    description = model.described()
    content = Content(serving_state(model, build_model(description, [Mine])), CATALOGUE, None, None)
    folder = write_bundle(tmp_path / "b", Manifest(description, ITEMS, CATALOGUE.fingerprint, None), content)
    assert "not registered" in refusal(folder)
    assert Recommender.load(folder, classes=[Mine]).recommend(raw([[1]]))


def test_state_that_is_more_than_tensors_is_refused():
    model = SBRModule(SRGNN(ITEMS, 8), heads=[Scattered()])
    with pytest.raises(InputError, match=r"not all tensors.*_extra_state"):
        serving_state(model, build_model(model.described(), [Scattered]))
