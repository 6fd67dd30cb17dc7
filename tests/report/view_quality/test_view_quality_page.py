"""The quality report for people: nothing in it is executed or obeyed, and the figures decide what it says."""

import json
import re
from html.parser import HTMLParser

import pytest

from llm4sbr.report.records import LocalisedTitle, SessionStory, ViewStory
from llm4sbr.report.view_quality.answers import AnswerFacts
from llm4sbr.report.view_quality.json import to_json
from llm4sbr.report.view_quality.page import render
from llm4sbr.report.view_quality.records import (
    Estimate,
    MeasuredData,
    MeasuredViews,
    Provenance,
    QualityReport,
    RankingQuality,
    Sample,
    ViewPlace,
    ViewQuality,
    significance,
)
from llm4sbr.report.view_quality.statistics import METRICS
from llm4sbr.report.view_quality.text import estimate, to_text

EVIL = (
    "<script>alert(1)</script>'\"><img src=x onerror=alert(2)> {{ 7 * 7 }}"
    "\x1b[2J\x00\x07\ud800\u202e\nnext: forged"
)


def same(*values):
    return dict.fromkeys(METRICS, Estimate(*values))


def ranking(name, *values, kind="view"):
    return RankingQuality(name, kind, same(*values), same(*values), 12, 0.25)


def view(
    name="short_term", own=(0.04, 0.02, 0.06), other=(0.11, 0.08, 0.14), gap=(-0.07, -0.1, -0.03), **more
):
    values = {
        "baseline": ranking("the last title", *other, kind="titles"),
        "every": same(*gap),
        "unclicked": same(*gap),
        "new_hits": 0.01,
        "named": 44,
        "answers": AnswerFacts(20, 1, 2, 3, 4, 5, (("Soap", 3),), 200, 100, 60),
    }
    return ViewQuality(name, ranking(f"{name} view", *own), **{**values, **more})


def sample(text="Rose Soap", **changes):
    values = {
        "session_id": "17",
        "clicks": (text, ""),
        "target": text,
        "views": (ViewStory("short_term", text, "llm", (LocalisedTitle(text, 0.8),)),),
    }
    return Sample(
        SessionStory(**{**values, **changes}), (ViewPlace("short_term", 12.5, "the last title", 3.0),)
    )


GROUPS = {
    MeasuredViews: {
        "store": "views/beauty",
        "spec": "abc (llm tiny, encoder bag, r=5)",
        "source": "llm",
        "model": "tiny",
        "encoder": "bag",
        "r": 5,
    },
    MeasuredData: {
        "name": "AmazonBeauty",
        "split": "validate",
        "num_items": 12101,
        "examples": 400,
        "covered": 300,
        "sessions": 100,
        "targets": 250,
        "coverage": {"train": 0.5, "validate": 0.75},
    },
    Provenance: {
        "command": "llm4sbr views report",
        "date": "2026-01-01",
        "machine": "x86",
        "device": "cpu",
        "versions": {"torch": "2.13"},
    },
}


def report(**changes):
    """A report; a change is named by its field, in whatever group that stands."""
    measured, data, made = (
        group(**{name: changes.pop(name, value) for name, value in fields.items()})
        for group, fields in GROUPS.items()
    )
    values = {
        "views": (view(),),
        "references": (ranking("chance", 0.002, kind="random"),),
        "samples": (sample(),),
        "draws": 2000,
    }
    return QualityReport(measured, data, made=made, **{**values, **changes})


class Page(HTMLParser):
    """Tags, handlers, ids and text of a page whose elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.stack = [], [], "", []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "img"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_and_asks_nothing_of_the_network():
    text = render(report())
    page = Page(text)
    loads = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert loads == ["data:,"]
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert text == render(report())
    assert not re.search(r"<th(?![^>]*scope=)[ >]", text)
    assert "rank 12.5 of 12,101; by the last title at 3" in " ".join(page.text.split())
    assert 'class="gate"' not in text  # nothing is trained yet


HOSTILE = [
    {"samples": (sample(EVIL, session_id=EVIL),)},
    {"views": (view(EVIL),)},
    {"views": (view(baseline=ranking(EVIL, 0.1, 0.1, 0.1, kind="titles")),)},
    {"views": (view(answers=AnswerFacts(2, frequent=((EVIL, 2),))),)},
    {"store": EVIL, "spec": EVIL, "model": EVIL, "encoder": EVIL, "name": EVIL},
    {"command": EVIL, "machine": EVIL, "versions": {EVIL: EVIL}, "coverage": {EVIL: 0.5}},
]


@pytest.mark.parametrize("changes", HOSTILE)
def test_nothing_that_came_with_the_data_is_markup(changes):
    """Seen to fail with `|safe` on answers, on click titles, and with autoescape off."""
    text = render(report(**changes))
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text  # and yet it is told as it is
    assert "{{ 7 * 7 }}" in text
    assert not set(text) & set("\x00\x07\x1b\ud800")


@pytest.mark.parametrize("changes", HOSTILE)
def test_nothing_that_came_with_the_data_steers_the_terminal(changes):
    """Seen to fail without the filter on the finished lines."""
    text = to_text(report(**changes))
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\u202e" not in text
    assert not [line for line in text.split("\n") if line.strip().startswith("next: forged")]
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {},
            "significantly less often than the last title (4.0 % against 11.0 % in 20): not worth",
        ),
        (
            {"views": (view(own=(0.15, 0.12, 0.18), gap=(0.04, 0.01, 0.08)),)},
            "significantly more often than the last title (15.0 % against 11.0 % in 20): worth training on",
        ),
        (
            {"views": (view(gap=(-0.01, -0.03, 0.01)),)},
            "from the last title (4.0 % against 11.0 % in 20): views of more sessions may decide",
        ),
        ({"views": (view(gap=(-0.01, -0.03, 0.01)),), "covered": 400}, "against 11.0 % in 20)."),
        ({"views": (view(own=(0.003, 0.0, 0.006)),)}, "in 20, no better than chance): not worth"),
        # Beating a baseline that finds nothing is no praise where chance does as well.
        ({"views": (view(own=(0.003, 0.001, 0.006), gap=(0.003, 0.001, 0.006)),)}, "does not differ"),
        ({"views": (view(own=(0.04,)),)}, "is known in one session only"),
        ({"covered": 0}, "No example of the validate split has its views in the store"),
        (
            {"views": (view(baseline=None),)},
            "has the next item in its first 20 in 4.0 % of the examples",
        ),
    ],
)
def test_the_verdict_is_what_the_intervals_say(changes, told):
    """Seen to fail with the signs of `significance` swapped, and with chance left out of it."""
    made = report(**changes)
    assert told in made.verdict
    assert made.verdict in to_text(made)
    assert made.verdict in Page(render(made)).text
    assert json.loads(to_json(made))["verdict"] == made.verdict


@pytest.mark.parametrize(
    "changes",
    [
        {
            "covered": 0,
            "views": (ViewQuality("long_term", RankingQuality("long_term view", "view")),),
            "references": (),
        },
        {"views": (), "references": (), "samples": (), "coverage": {}, "covered": 0},
        {"source": "titles", "model": "", "r": 0, "views": (view(answers=None, named=None),)},
        {"views": (view(answers=AnswerFacts()),), "samples": ()},
        {"views": (view(own=(0.0,), other=(0.0,), gap=(0.0,)),)},
        {"views": (view(), view("long_term"), view("mood", answers=None))},
        {"samples": (sample(views=(ViewStory("short_term", None, "titles"),), target=None),)},
    ],
)
def test_a_report_with_gaps_is_a_report(changes):
    made = report(**changes)
    Page(render(made))
    rows = json.loads(to_json(made))["rows"]
    assert all(isinstance(row["value"], int | float) for row in rows)
    for text in (to_text(made), render(made)):
        assert "None" not in text
        assert "nan" not in text


def test_json_has_the_intervals_and_what_is_met():
    rows = {row["what"]: row for row in json.loads(to_json(report()))["rows"]}
    lost = rows["short_term view minus the last title: hit@20 among all items"]
    assert (lost["value"], lost["target"], lost["better"], lost["met"]) == (-7.0, 0, "higher", False)
    assert "95 % interval [-10.0, -3.0], 2000 draws" in lost["note"]
    assert rows["short_term view: prompt tokens computed an answer"]["value"] == 5.0
    assert rows["short_term view: answers cut at the token limit"]["value"] == 10.0
    assert rows["validate examples with every view"]["value"] == 75.0


def test_small_numbers_read_well():
    assert estimate(Estimate(-0.0001, -0.02, 0.0001), signs=True) == "0.0 [−2.0, 0.0]"
    assert estimate(Estimate(0.5)) == "50.0"
    assert [significance(Estimate(0, *edges)) for edges in ((-2, -1), (-1, 1), (1, 2), ())] == [-1, 0, 1, 0]
