"""Reasons: each effect is what a model without the part computes, by hand."""

import json
from dataclasses import replace
from math import log

import pytest
import torch
from bundles import CATALOGUE, KNOWN, SESSIONS, SPEC, bundle, known_rows, raw, trained, with_known_views
from matplotlib.figure import Figure

from llm4sbr import InputError
from llm4sbr.cli.explain import draw
from llm4sbr.cli.main import main
from llm4sbr.serving import Recommender
from llm4sbr.testing import make_batch

ITEM = "B004"


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    return bundle(tmp_path_factory.mktemp("one") / "bundle", model, spec=SPEC)


@pytest.fixture(scope="module")
def recommender(folder):
    return Recommender.load(folder)


def place(scores, item=ITEM):
    """Log-probability and rank of an item."""
    column = CATALOGUE.index[item] - 1
    rank = 1 + int((scores[0] > scores[0, column]).sum())
    return scores.double().log_softmax(1)[0, column].item(), rank


def test_a_click_is_left_out_with_the_views_as_they_were(recommender, model):
    """Seen to fail with the views of the shorter session, and with one place too far."""
    session = SESSIONS[0]
    batch = with_known_views([session])
    with torch.inference_mode():
        whole, rank = place(model(batch))
        found = recommender.explain(raw([session])[0], ITEM)
        assert (found.rank, log(found.probability)) == (rank, pytest.approx(whole, abs=1e-5))
        assert [one.item_id for one in found.clicks] == raw([session])[0]
        assert [one.place for one in found.clicks] == [0, 1, 2, 3]
        for one in found.clicks:
            less = make_batch([session[: one.place] + session[one.place + 1 :]])
            without, rank = place(model(less._replace(views=batch.views, view_mask=batch.view_mask)))
            assert one.effect == pytest.approx(whole - without, abs=1e-5)
            assert one.rank_without == rank
    assert len({round(one.effect, 6) for one in found.clicks}) > 1


def test_a_view_is_left_out_and_named_by_its_items(recommender, model):
    """Seen to fail with the other view hidden, and with the row of another session."""
    batch = with_known_views([KNOWN[0]])
    ids, weights = known_rows()
    with torch.inference_mode():
        whole, _ = place(model(batch))
        found = recommender.explain(raw([KNOWN[0]])[0], ITEM)
        assert (found.view, [one.name for one in found.views]) == ("known", ["long_term", "short_term"])
        for view, one in enumerate(found.views):
            mask = batch.view_mask.clone()
            mask[0, view] = False
            without, rank = place(model(batch._replace(view_mask=mask)))
            assert (one.effect, one.rank_without) == (pytest.approx(whole - without, abs=1e-5), rank)
            heaviest = weights[0, view].argsort(descending=True).tolist()
            assert [item for item, *_ in one.intents] == [
                CATALOGUE.item_ids[ids[0, view, column] - 1] for column in heaviest
            ]
    unknown = recommender.explain(raw([SESSIONS[1]])[0], ITEM)
    assert (unknown.view, unknown.views) == ("absent", ())


def test_heads_are_left_out_one_at_a_time(recommender, model):
    """Seen to fail with the heads after it left out, too. Titles in the items' vectors are no such head."""
    found = recommender.explain(raw([SESSIONS[0]])[0], ITEM)
    assert [one.name for one in found.heads] == ["TextScores", "RepeatExplore", "SequentialRules"]
    batch = with_known_views([SESSIONS[0]])
    with torch.inference_mode():
        whole, _ = place(model(batch))
        enhanced = model.enhance(batch)
        heads = [head for head in model.score_heads() if type(head).__name__ != "ItemTitles"]
        for one, left_out in zip(found.heads, heads, strict=True):
            scores = model.score(enhanced.session, enhanced.interests)
            for head in heads:
                scores = scores if head is left_out else head(scores, enhanced.session, enhanced.seen)
            without, rank = place(scores)
            assert (one.effect, one.rank_without) == (pytest.approx(whole - without, abs=1e-5), rank)


def test_a_single_click_and_a_bare_model(tmp_path):
    """Unknown ids keep their places, and clicks before `max_length` have no effect to show."""
    bare = Recommender.load(bundle(tmp_path / "bundle", trained(wrapped=False), max_length=2))
    found = bare.explain(["B001", "zz", "B002", "B003"], ITEM)
    assert [(one.item_id, one.place) for one in found.clicks] == [("B002", 2), ("B003", 3)]
    assert (found.ignored, found.views, found.view) == (("zz",), (), "absent")
    assert not bare.explain(["zz", "B001"], ITEM).clicks
    with pytest.raises(InputError, match="the item is not in the catalogue"):
        bare.explain(["B001"], "zz")
    with pytest.raises(InputError, match="no item of the session"):
        bare.explain(["zz"], "B001")


def test_the_click_that_speaks_most_for_an_item_costs_it_more_than_another(recommender):
    """Faithfulness: its loss of rank against that of the other clicks, over recommended items."""
    named, others = [], []
    for session in raw(SESSIONS[:1] + SESSIONS[3:]):
        for item in recommender.recommend([session], k=5)[0].item_ids:
            found = recommender.explain(session, item)
            first, *rest = sorted(found.clicks, key=lambda one: -one.effect)
            named.append(first.rank_without - found.rank)
            others += [one.rank_without - found.rank for one in rest]
    assert sum(named) / len(named) > sum(others) / len(others)


def test_the_heading_of_a_picture_is_inside_it(recommender, tmp_path, monkeypatch):
    """Seen to fail with a heading over the bars alone, which begin in the middle."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    found, long = recommender.explain(raw([SESSIONS[0]])[0], ITEM), "A rather long title " * 20
    found = replace(found, title=long, clicks=tuple(replace(one, title=long) for one in found.clicks))
    draw(found, tmp_path / "why.png")
    drawn[0].draw_without_rendering()
    texts = (*drawn[0].texts, *(axes.title for axes in drawn[0].axes))
    [heading] = [text for text in texts if text.get_text()]
    inner, outer = heading.get_window_extent(), drawn[0].bbox
    assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
    assert outer.y0 <= inner.y0 < inner.y1 <= outer.y1
    assert heading.get_text().endswith(f"rank {found.rank}")


def test_the_command_prints_a_table_an_object_and_a_picture(
    folder, recommender, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    session = raw([SESSIONS[0]])[0]
    words = ["explain", str(folder), "--session", *session, "zz", "--item", ITEM]
    picture = tmp_path / "why.png"
    assert main([*words, "--picture", str(picture)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("B004 Soap 3: rank ")
    assert "Ignored, because the catalogue lacks them: zz." in told
    assert all(f"{one.effect:+.3f}" in told for one in recommender.explain(session, ITEM).clicks)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["item_id"] for one in found["clicks"]] == session
    assert main([*words, "--picture", str(tmp_path / "why.txt")]) == 1
    assert "unknown ending" in capsys.readouterr().err
