"""A recommender with a retrieval recommends what one without recommends, or is refused with the reason."""

import json
import os
import re
import sys

import pytest
import torch
from bundles import CATALOGUE, SESSIONS, SPEC, bundle, raw
from every_backbone import ITEMS, OURS, make

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.nn.heads import RepeatExplore, SequentialRules
from llm4sbr.nn.retrieval import RETRIEVALS, Bfloat16Items, Float32Items, IndexedItems, Int8Items, retrieval
from llm4sbr.nn.scorers import OwnScores
from llm4sbr.nn.uncertainty import entropy
from llm4sbr.serving import Recommender
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.live_bundle import LiveBundle
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.testing import make_examples

EXACT = ("float32", "bfloat16", "int8")


def with_repeats(name="SRGNN", wrapped=True, heads=None, **options):
    """A model with text scores, titles and repeats, where it is wrapped."""
    torch.manual_seed(1)
    model = make(name, wrapped, heads=[RepeatExplore()] if heads is None else heads, **options)
    model.read_training_sessions(make_examples([[1, 2, 3, 2], [5, 5, 5], [4, 2]]), fitting=True)
    return model.eval()


@pytest.fixture(autouse=True)
def no_catalogue_is_small(monkeypatch):
    monkeypatch.setattr(retrieval, "_SMALL", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("retrieval") / "bundle", with_repeats(), spec=SPEC)


def same(found, expected, off=0.06):
    """Items in the same order but for ties, and their scores: own items are shifted by a rounded sum."""
    for one, other in zip(found, expected, strict=True):
        assert (one.ignored, one.view, one.reason) == (other.ignored, other.view, other.reason)
        assert one.scores == pytest.approx(other.scores, abs=off)
        ranked = dict(zip(other.item_ids, other.scores, strict=True))
        assert set(one.item_ids) == set(ranked)
        assert [ranked[item] for item in one.item_ids] == pytest.approx(other.scores, abs=off)


@pytest.mark.parametrize("name", EXACT)
def test_filters_hold_and_nothing_else_changes(folder, name):
    plain, one = (Recommender.load(folder, retrieval=how) for how in (None, RETRIEVALS[name]()))
    sessions = [*raw(SESSIONS), ["unknown"], [], ["B003", "unknown"], ["B001"] * 9]
    each = torch.rand(len(sessions), ITEMS, generator=torch.Generator().manual_seed(0)) < 0.4
    for asked in (
        {},
        {"seen": False},
        {"only": ["B001", "B004", "B009"]},
        {"without": ["B002", "B003"], "seen": False},
        {"mask": each[0]},
        {"mask": each},
        {"mask": torch.zeros(ITEMS, dtype=torch.bool)},
        {"only": ["B002"], "mask": each, "seen": False},
    ):
        for k in (1, 4, ITEMS, 99):
            same(one.recommend(sessions, k, **asked), plain.recommend(sessions, k, **asked))
    assert torch.equal(one.scores(raw(SESSIONS)), plain.scores(raw(SESSIONS)))
    found, expected = one.explain(["B001", "B002"], "B003"), plain.explain(["B001", "B002"], "B003")
    assert found.rank == expected.rank
    assert found.probability == pytest.approx(expected.probability)


@pytest.mark.parametrize("name", OURS)
def test_every_backbone_works_or_is_refused(name, tmp_path):
    made = bundle(tmp_path / "bundle", with_repeats(name), spec=SPEC)
    own = OURS[name].has_own_scores()
    if own or name == "DHCN":
        said = f"{name} has scores of its own" if own else f"{name} computes its items anew"
        with pytest.raises(InputError, match=said):
            Recommender.load(made, retrieval=Int8Items())
        return
    plain, one = (Recommender.load(made, retrieval=how) for how in (None, Float32Items()))
    same(one.recommend(raw(SESSIONS), 6), plain.recommend(raw(SESSIONS), 6), 1e-4)


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ([SequentialRules(0.5, 4), RepeatExplore()], "SequentialRules needs the scores of all items$"),
        ([RepeatExplore(), RepeatExplore()], "RepeatExplore needs .* unless it is the last head$"),
    ],
)
def test_heads_that_need_all_scores_are_refused(heads, said, tmp_path):
    made = bundle(tmp_path / "bundle", with_repeats(wrapped=False, heads=heads))
    with pytest.raises(InputError) as refused:
        Recommender.load(made, retrieval=Int8Items())
    assert re.search(said, refused.value.problem)


def test_products_without_cosines_and_without_repeats(tmp_path):
    made = bundle(tmp_path / "bundle", with_repeats(heads=[], wrapped=False, scorer=OwnScores()))
    for name in EXACT:
        plain, one = (Recommender.load(made, retrieval=how) for how in (None, RETRIEVALS[name]()))
        same(one.recommend(raw(SESSIONS), 5), plain.recommend(raw(SESSIONS), 5), 1e-5)


def test_an_observer_reads_the_scores_of_a_row(folder):
    """They are those of the model, to the precision of the scan."""
    one, seen = Recommender.load(folder, retrieval=Int8Items()), []
    one.recommend(raw(SESSIONS), 3, observe=lambda clicks, scores, states: seen.append((clicks, scores)))
    ((clicks, scores),) = seen
    assert len(scores) == len(clicks) == len(SESSIONS)
    exact = one.scores(raw(SESSIONS))
    for row in range(len(SESSIONS)):
        torch.testing.assert_close(scores[row : row + 1], exact[row : row + 1], rtol=0, atol=0.2)


def test_new_items_and_other_views_keep_the_retrieval(folder):
    one = Recommender.load(folder, retrieval=Int8Items())
    title = torch.nn.functional.normalize(torch.randn(1, 6), dim=1)
    grown = one.with_items({"B900": "Olive oil soap"}, title)
    plain = Recommender.load(folder).with_items({"B900": "Olive oil soap"}, title)
    assert grown.retrieval is one.retrieval
    same(grown.recommend(raw(SESSIONS), ITEMS + 1), plain.recommend(raw(SESSIONS), ITEMS + 1))
    again = one.with_views(one.views)
    assert again.recommend(raw(SESSIONS)) == one.recommend(raw(SESSIONS))


def test_a_broken_model_is_refused(folder):
    one = Recommender.load(folder, retrieval=Int8Items())
    with torch.inference_mode():
        one.model.backbone.embedding.weight[2] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        one.recommend([[CATALOGUE.item_ids[1]]])


def test_an_index_serves_requests_without_own_items(folder, monkeypatch):
    """Other requests, and those with filters, are exact."""
    pytest.importorskip("usearch", reason='pip install "llm4sbr[index]"')
    with pytest.warns(UserWarning, match="only requests without them"):
        one = Recommender.load(folder, retrieval=IndexedItems())
    plain, searches = Recommender.load(folder), []
    near = one._ranker.search._candidates
    monkeypatch.setattr(one._ranker.search, "_candidates", lambda *given: searches.append(1) or near(*given))
    for asked in ({}, {"only": ["B001", "B009"]}, {"mask": torch.arange(ITEMS) > 3, "seen": False}):
        same(one.recommend(raw(SESSIONS), 3, **asked), plain.recommend(raw(SESSIONS), 3, **asked), 1e-4)
    assert not searches
    without = one.recommend([["B001"], ["B002", "B003"]], 3, seen=False)
    same(without, plain.recommend([["B001"], ["B002", "B003"]], 3, seen=False), 1e-4)
    assert searches


def test_the_commands_take_a_retrieval(folder, capsys, monkeypatch):
    """`recommend` gives the same; the server gives it to its bundles, and takes no other name."""
    words = ["recommend", str(folder), "--session", "B001", "B002", "--k", "3", "--json"]
    shown = []
    for more in ([], ["--retrieval", "int8"]):
        assert main([*words, *more]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0]["item_ids"] == shown[1]["item_ids"]
    pytest.importorskip("uvicorn", reason='pip install "llm4sbr[serve]"')
    seen = []
    monkeypatch.setattr(
        "llm4sbr.serving.server.process.serve_bundle", lambda *given, **more: seen.append(more) or 0
    )
    assert main(["serve", "bundle", "--retrieval", "bfloat16"]) == main(["serve", "bundle"]) == 0
    assert isinstance(seen[0]["retrieval"], Bfloat16Items)
    assert seen[1]["retrieval"] is None
    with pytest.raises(SystemExit):
        main(["serve", "bundle", "--retrieval", "float16"])
    assert "float16" in capsys.readouterr().err


def test_a_missing_index_package_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert main(["recommend", str(folder), "--session", "B001", "--retrieval", "index"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert "llm4sbr[index]" in told[-1]


def test_a_reload_keeps_the_retrieval(folder):
    log = JsonLog("error", open(os.devnull, "w"))  # noqa: SIM115
    live = LiveBundle(folder, "cpu", Metrics(), log, retrieval=Int8Items())
    before = live.now.recommender
    assert live.reload()
    assert live.now.recommender is not before
    assert live.now.recommender.retrieval is before.retrieval is live.retrieval
    assert live.now.recommender.recommend(raw(SESSIONS)) == before.recommend(raw(SESSIONS))


def test_uncertain_sessions_are_found_by_the_scores_of_their_rows(folder):
    """The entropies of a batch are those of all scores, to the precision of the scan."""
    found, expected = [], []
    for how, into in ((Int8Items(), found), (None, expected)):
        Recommender.load(folder, retrieval=how).recommend(
            raw(SESSIONS),
            observe=lambda clicks, scores, _, into=into: into.extend(
                float(entropy(scores[row : row + 1])) for row in range(len(clicks))
            ),
        )
    assert found == pytest.approx(expected, abs=0.05)
