"""New items of a bundle: candidates and clicks from their titles, while the other items keep their scores."""

import json
import warnings
from dataclasses import replace

import polars as pl
import pytest
import torch
from bundles import CATALOGUE, KNOWN, SESSIONS, SPEC, bundle, edited, raw, titles, trained
from every_backbone import ITEMS, OURS, TEXT, TRAINING, make

from llm4sbr import InputError
from llm4sbr.nn.heads import SequentialRules
from llm4sbr.serving import Recommender
from llm4sbr.testing import make_examples

NEW = {"N1": "Soap 3 with roses", "N2": "Pearl \u202e\x1b[2J"}


def embedded(count=2, seed=5):
    drawn = torch.randn(count, TEXT, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn)


def served(folder, name="SRGNN", heads=()):
    """A recommender whose scores of an item do not depend on the other candidates."""
    torch.manual_seed(1)
    model = make(name, True, heads=[SequentialRules(0.5, 4), *heads])
    model.read_training_sessions(make_examples(TRAINING), fitting=True)
    return Recommender.load(bundle(folder, model.eval(), spec=SPEC))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return served(tmp_path_factory.mktemp("one") / "bundle")


@pytest.fixture(scope="module")
def grown(before):
    return before.with_items(NEW, embedded())


# MSGIFSR scores with log-probabilities over the whole catalogue, so that new items change them all.
@pytest.mark.parametrize("name", sorted(set(OURS) - {"MSGIFSR"}))
def test_known_items_keep_their_scores(name, tmp_path):
    """In every backbone, with titles, text scores, rules and known views."""
    one = served(tmp_path / "bundle", name)
    expected, more = one.scores(raw(SESSIONS)), one.with_items(NEW, embedded())
    found = more.scores(raw(SESSIONS))
    assert found.shape == (len(SESSIONS), ITEMS + 2)
    torch.testing.assert_close(found[:, :ITEMS], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.scores(raw(SESSIONS)), expected, rtol=0, atol=0)  # it has not changed
    states = [found.view for found in more.recommend(raw(SESSIONS))]
    assert states == ["known" if session in KNOWN else "absent" for session in SESSIONS]


def test_a_head_that_compares_with_the_catalogue_moves_the_session_alone(tmp_path):
    """`RepeatExplore` gives the session's items their probability; orders stay."""
    one = Recommender.load(bundle(tmp_path / "bundle", trained(), spec=SPEC))
    expected, found = one.scores(raw(SESSIONS)), one.with_items(NEW, embedded()).scores(raw(SESSIONS))
    for row, session in enumerate(SESSIONS):
        own = torch.zeros(ITEMS, dtype=torch.bool)
        own[[item - 1 for item in session]] = True
        moved = found[row, :ITEMS] - expected[row]
        assert moved[~own].abs().max() < 1e-5
        assert (moved[own] - moved[own][0]).abs().max() < 1e-5
        assert moved[own][0] > 0  # more items to explore


def test_a_new_item_is_a_candidate_and_a_click(before, grown):
    assert grown.catalogue.item_ids == (*CATALOGUE.item_ids, "N1", "N2")
    (found,) = grown.recommend([["N1"]], k=ITEMS + 2)
    assert {"N1", "N2"} <= set(found.item_ids)
    assert (found.ignored, found.reason) == ((), None)
    assert dict(zip(found.item_ids, found.titles, strict=True))["N2"] == NEW["N2"]
    clicked, without = grown.scores([["B001", "N2"]]), grown.scores([["B001"]])
    assert not torch.allclose(clicked, without)
    assert before.recommend([["B001", "N2"]])[0].ignored == ("N2",)
    assert grown.explain(["B001", "N1"], "N2").item_id == "N2"


def test_the_title_decides(before):
    """Items with one title score alike; another title scores otherwise. Seen to fail with random rows."""
    one, other = embedded()
    more = before.with_items({"a": "x", "b": "x", "c": "y"}, torch.stack((one, one, other)))
    found = more.scores(raw(SESSIONS))[:, ITEMS:]
    torch.testing.assert_close(found[:, 0], found[:, 1])
    assert not torch.allclose(found[:, 0], found[:, 2])


def test_the_bundle_of_a_grown_recommender(before, grown, tmp_path):
    """It scores as the one in memory, to the last bit, and says what it was made of."""
    folder = grown.save(tmp_path / "grown")
    again = Recommender.load(folder)
    sessions = [*raw(SESSIONS), ["N1", "B002"]]
    assert torch.equal(again.scores(sessions), grown.scores(sessions))
    made_of = [{"items": 2, "bundle": before.manifest.sha256}]
    assert again.manifest.origin["added"] == made_of
    assert again.manifest.num_items == ITEMS + 2
    twice = again.with_items({"N3": "Amber"}, embedded(1, seed=9))
    assert twice.manifest.origin["added"] == [*made_of, {"items": 1, "bundle": again.manifest.sha256}]
    assert torch.allclose(twice.scores(sessions)[:, : ITEMS + 2], again.scores(sessions), atol=1e-5)
    in_memory = grown.with_items({"N3": "Amber"}, embedded(1, seed=9))
    assert torch.allclose(in_memory.scores(sessions), twice.scores(sessions))


def test_rows_without_news_are_left_out_and_counted(before):
    """Embeddings follow their rows. Seen to fail with the first embeddings taken."""
    table = pl.DataFrame({
        "item_id": ["B001", "e", "N1", "f", "N2"],
        "title": ["Soap 0", "", NEW["N1"], None, NEW["N2"]],
        "price": [1, 2, 3, 4, 5],
    })  # fmt: skip
    rows = torch.randn(5, TEXT)
    rows[[2, 4]] = embedded()
    with pytest.warns(UserWarning, match="no title|already") as told:
        found = before.with_items(table, rows)
    said = sorted(str(one.message) for one in told)
    assert said[0] == "1 items are in the catalogue already"
    assert said[1] == "2 new items have no title and are left out, such as 'e'"
    assert found.catalogue.item_ids[ITEMS:] == ("N1", "N2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = before.with_items(NEW, embedded())
    assert torch.equal(found.scores(raw(SESSIONS)), expected.scores(raw(SESSIONS)))


@pytest.mark.parametrize(
    ("table", "rows", "options", "said"),
    [
        ({"B001": "Soap 9"}, 1, {}, r"row 1: item 'B001' is in the catalogue with another title, 'Soap 0'"),
        ({"B001": "Soap 0"}, 1, {}, "no new item with a title"),
        ({}, 0, {}, "no new item with a title"),
        (pl.DataFrame({"item_id": ["a", "a"], "title": ["x", "x"]}), 2, {}, "duplicate item id"),
        (pl.DataFrame({"item_id": ["a"], "name": ["x"]}), 1, {}, r"column is missing \(got 'title'\)"),
        (pl.DataFrame({"item_id": [7], "title": ["x"]}), 1, {}, "row 1: an item id is a text"),
        ({"": "x"}, 1, {}, "row 1: an item id is a text that is not empty"),
        ({"a": "\ud800"}, 1, {}, "row 1: a title is a text"),
        (NEW, 3, {}, r"must be \(2, 6\), one for each of the 2 rows"),
        (NEW, 2, {"size": 4}, r"must be \(2, 6\)"),
        (NEW, 2, {"scale": float("nan")}, "the title embeddings"),
        (NEW, 2, {"scale": 0.0}, "the embedding of a title is zero"),
        (NEW, 2, {"known": torch.ones(ITEMS, TEXT)}, "give those of new ones only"),
    ],
)
def test_what_cannot_be_added_is_refused(before, table, rows, options, said):
    given = torch.randn(rows, options.pop("size", TEXT)) * options.pop("scale", 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=said):
            before.with_items(table, given, **options)


def test_another_encoder_is_refused(tmp_path):
    """By its fingerprint. Seen to fail without the comparison."""
    folder = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    edited(folder, encoder={"name": "letters", "fingerprint": "abc"})
    one = Recommender.load(folder)
    with pytest.raises(InputError, match=r"another encoder than the bundle's, letters \(got 'abd'\)"):
        one.with_items(NEW, embedded(), encoder="abd")
    assert one.with_items(NEW, embedded(), encoder="abc").catalogue.num_items == ITEMS + 2


def test_a_bare_bundle_needs_the_titles_of_its_items(tmp_path):
    """With them its new rows follow the titles, too."""
    one = Recommender.load(bundle(tmp_path / "bundle", trained(wrapped=False)))
    with pytest.raises(InputError, match="this bundle has no title embeddings, so nothing says which items"):
        one.with_items(NEW, embedded())
    with pytest.raises(InputError, match=r"must be \(11, d_t\), one for each of the 11 items"):
        one.with_items(NEW, embedded(), known=torch.ones(3, TEXT))
    more = one.with_items({"a": "x", "b": "x"}, embedded(1).repeat(2, 1), known=titles()[0])
    found = more.scores([["B004", "B005"]])
    torch.testing.assert_close(found[:, ITEMS], found[:, ITEMS + 1])
    assert more.views is None
    again = Recommender.load(more.save(tmp_path / "grown"))
    assert torch.equal(again.scores([["a", "B001"]]), more.scores([["a", "B001"]]))


def test_a_recommender_without_its_bundle_cannot_grow(before, tmp_path):
    made = Recommender(before.model, before.catalogue, views=before.views)
    with pytest.raises(InputError, match="does not come from a bundle"):
        made.with_items(NEW, embedded())
    folder = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    one = Recommender.load(folder)
    edited(folder, metrics={"val/recall@20": 0.5})
    with pytest.raises(InputError, match="the bundle has been replaced since it was loaded"):
        one.with_items(NEW, embedded())


def test_a_backbone_of_a_fixed_size_is_refused(tmp_path):
    folder = bundle(tmp_path / "bundle", trained(), spec=SPEC)
    model = json.loads((folder / "manifest.json").read_text())["model"]
    one = Recommender.load(folder)
    del model["init_args"]["backbone"]["init_args"]["num_items"]
    manifest, content = one._read_content()
    one._content = replace(manifest, model=model), content
    with pytest.raises(InputError, match="does not take num_items"):
        one.with_items(NEW, embedded())
