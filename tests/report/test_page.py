"""The page: what is on it, that nothing on it is executed, and that it asks nothing of the network."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from llm4sbr import InputError
from llm4sbr.report.page import (
    comparison,
    duration,
    number,
    rank,
    render,
    signed,
    to_json,
    verdict,
    write_page,
)
from llm4sbr.report.records import (
    DataFacts,
    DemoReport,
    IntentFacts,
    LocalisedTitle,
    RankedItem,
    RankedList,
    RunResult,
    SessionStory,
    SplitFacts,
    ViewStory,
)
from llm4sbr.views.inference.summary import AnswerCounts

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7 * 7 }} \x00\x07\ud800"
VOID = {"meta", "link", "br", "img", "hr", "input"}


def run(name, shift=0.0, **more):
    metrics = {
        f"test/{kind}@{k}": 0.1 * row + 0.01 * k + shift
        for row, kind in enumerate(("mrr", "ndcg", "recall"))
        for k in (5, 10, 20)
    }
    history = tuple(
        {
            "val/recall@20": 0.1 + 0.02 * epoch + shift,
            "val/mrr@20": 0.03 + 0.01 * epoch,
            "val/ndcg@20": 0.05 + 0.01 * epoch - shift,
            "train/loss": 7 - 0.3 * epoch,
        }
        for epoch in range(4)
    )
    return RunResult(name, f"What {name} is.", metrics, history, 21.5, 4, 1_234_567, **more)


def ranked(best="Fargo (1996)", target_rank=2.0):
    return RankedList(
        (
            RankedItem(best, 9.1, False),
            RankedItem("Heat (1995)", 8.0, True),
            RankedItem("Jaws (1975)", -1.0, False),
        ),
        target_rank,
    )


def story(title="Scream (1996)", **changes):
    values = {
        "session_id": "17_3",
        "clicks": (title, "", "Heat (1995)"),
        "target": "Heat (1995)",
        "views": (
            ViewStory(
                "long_term",
                "A scary film",
                "llm",
                (LocalisedTitle(title, 0.83),),
                gate=1.234,
                share=1.273,
                prompt="A user clicked",
            ),
            ViewStory("short_term", None, "titles", (), math.nan, -0.273),
            ViewStory("short_term", None, "titles", (), math.nan, math.nan),
        ),
        "recommendations": {"SR-GNN": ranked(), "Wrapped": ranked(title, 1344.5)},
    }
    return SessionStory(**{**values, **changes})


def report(**changes):
    values = {
        "title": "LLM4SBR on a test",
        "data": DataFacts("Test data", 1345, (SplitFacts("train", 10, 100, 90),), "How it was split."),
        "intents": IntentFacts(
            "SmolLM2",
            "MiniLM",
            300,
            400,
            590,
            10,
            AnswerCounts(600, 3, 0, 333),
            2,
            (("Heat (1995)", 450), ("Jaws (1975)", 150)),
            80.0,
            {"train": 0.004, "test": 0.01},
        ),
        "runs": (run("SR-GNN"), run("Wrapped", 0.01)),
        "stories": (story(),),
        "timings": (("Data", 1.25), ("Training", 200.0)),
        "versions": {"torch": "2.13.0"},
        "command": "llm4sbr demo --seed 1",
        "date": "1 May 2026",
    }
    return DemoReport(**{**values, **changes})


class Reader(HTMLParser):
    """Collects tags and what they load, and checks that tags are closed in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.loads, self.handlers, self.ids, self.open, self.text = [], [], [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_full_page_is_well_formed_and_self_contained():
    page = render(report())
    read = Reader(page)
    assert all(load.startswith(("#", "data:,")) for load in read.loads)
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "script" not in read.tags
    assert len(read.ids) == len(set(read.ids))
    assert read.tags.count("svg") == 3  # no alignment here, so no fourth
    assert page.count('role="img"') == 3
    assert page == render(report())
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": EVIL},
        {"stories": (story(EVIL, session_id=EVIL, target=EVIL),)},
        {"stories": (story(views=(ViewStory(EVIL, EVIL, "llm", (), 1.0, 0.5, EVIL),)),)},
        {"stories": (story(recommendations={EVIL: ranked(EVIL)}),)},
        {"runs": (run(EVIL), run("Wrapped"))},
        {"data": DataFacts(EVIL, 1, (SplitFacts(EVIL, 1, 1, 1),), EVIL)},
        {"command": EVIL, "date": EVIL, "versions": {EVIL: EVIL}, "timings": ((EVIL, 1.0),)},
    ],
)
def test_nothing_that_came_with_the_data_is_markup(changes):
    page = render(report(**changes))
    read = Reader(page)
    assert not {"script", "img"} & set(read.tags)
    assert read.handlers == []
    assert "<script>alert(1)</script>" in "".join(read.text)  # and yet it is told as it is
    assert "{{ 7 * 7 }}" in page
    assert "\x00" not in page
    assert "\x07" not in page
    page.encode("utf-8")


def test_a_long_title_is_cut():
    """Wherever a story shows it. Seen to fail with the list of clicks left out."""
    page = render(report(stories=(story("Long " * 400, target="Long " * 400),)))
    assert "Long " * 24 not in page
    assert page.count(" Long…") == 4  # clicks, the target, a view, a list


def test_the_target_is_marked_and_its_rank_stated():
    page = " ".join("".join(Reader(render(report())).text).split())
    assert "rank 2 of 1,345" in page
    assert "rank 1,344.5 of 1,345" in page
    assert "Heat (1995) (the true next item)" in page
    assert "A scary film" in page
    assert "after 300 of 400 sessions" in page
    assert "share of the score 127 %" in page
    assert "share of the score −27 %" in page
    assert "share of the score – %" in page  # NaN
    assert "1.23" not in page  # a gate has no scale that a reader knows
    assert "(untitled item)" in page


@pytest.mark.parametrize(
    "changes",
    [
        {
            "runs": (),
            "stories": (),
            "intents": None,
            "timings": (),
            "versions": {},
            "command": "",
            "date": "",
        },
        {"runs": (RunResult("Alone", "No curve.", {}),)},
        {"runs": (RunResult("Alone", "One.", {"test/recall@5": 0.1}, ({},)),)},
        {"runs": (run("A"), RunResult("B", "Nothing known.", {"test/recall@5": math.nan}))},
        {"stories": (story(views=(), target=None, recommendations={}),)},
        {"stories": (story(views=(ViewStory("third view"), ViewStory("long_term", "  ", "titles"))),)},
        {"stories": (story(views=(ViewStory("x", "y", "llm", (LocalisedTitle("t", math.nan),)),)),)},
        {"intents": IntentFacts("M", "E")},
        {"runs": (run("A"), run("B"), run("C"))},
    ],
)
def test_a_page_with_gaps_is_a_page(changes):
    page = render(report(**changes))
    Reader(page)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower().replace("finance", "")


def test_comparison_marks_the_best_and_gives_the_lift():
    history = ({"val/recall@5": 0.9}, {"val/recall@5": 0.4, "val/mrr@5": 0.2, "train/loss": 1.0})
    tested = {"test/recall@20": 0.2, "test/recall@5": 0.1, "test/mrr@5": 0.0}
    first = RunResult("A", "", tested, history, best_epoch=2)
    tested = {"test/recall@20": 0.3, "test/recall@5": 0.05, "test/mrr@5": 0.0}
    second = RunResult("B", "", tested, ({"val/recall@5": 0.5, "val/mrr@5": 0.1},), best_epoch=1)
    rows = comparison([first, second])
    assert [row.metric for row in rows] == ["Recall@5", "Recall@20", "MRR@5"]
    assert [row.test.best for row in rows] == [0, 1, None]
    assert rows[0].test.lifts == (-0.5,)
    assert rows[1].test.lifts == pytest.approx((0.5,))
    assert rows[2].test.lifts == (None,)  # nothing is relative to zero
    assert [row.validation.values for row in rows] == [(0.4, 0.5), (None, None), (0.2, 0.1)]  # chosen epochs'
    assert [row.validation.best for row in rows] == [1, None, 0]
    assert verdict([first, second], rows) == (
        "On the validation split B is ahead of A in 1 of 2 metrics and behind in MRR@5. "
        "On the test split B is ahead of A in 1 of 2 metrics and behind in Recall@5."
    )
    assert verdict([first], comparison([first])) == ""


@pytest.mark.parametrize(("most", "shown"), [(301, True), (300, False)])
def test_a_language_model_that_always_says_the_same_is_told_of(most, shown):
    answers = (("Heat (1995)", most), ("Jaws (1975)", 600 - most))
    facts = replace(report().intents, frequent=answers)
    page = " ".join("".join(Reader(render(report(intents=facts))).text).split())
    assert "2 most frequent: Heat (1995) (50 %), Jaws (1975) (50 %)" in page
    assert ("More than half of all answers are the same title" in page) == shown


def test_numbers_read_well():
    assert signed(0.1234) == "+12.3\u202f%"
    assert signed(-0.5) == "\u221250.0\u202f%"
    assert signed(-0.00001) == "0.0\u202f%"
    assert number(-1.5) == "\u22121.50"
    assert number(math.inf) == "\u2013"
    assert (rank(3.0), rank(3.5), rank(1000)) == ("3", "3.5", "1,000")
    assert (duration(3.14), duration(74.2)) == ("3.1 s", "1 min 14 s")


def test_results_are_valid_json():
    text = json.dumps(to_json(report()), allow_nan=False)
    assert json.loads(text)["stories"][0]["views"][1]["gate"] is None


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    assert write_page(report(), tmp_path / "new" / "page.html").read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_page(report(), tmp_path / "file" / "page.html")
