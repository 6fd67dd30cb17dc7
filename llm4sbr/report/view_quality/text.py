"""The quality report as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm4sbr.report.page import number, percent, rank
from llm4sbr.report.view_quality.records import Estimate, QualityReport, Sample, ViewQuality, significance
from llm4sbr.report.view_quality.statistics import METRICS
from llm4sbr.views.prompts import sanitize_title

RANKINGS = {"every": "among all items", "unclicked": "with the session's own clicks left out"}
_WIDEST = 90  # characters of a title or an answer per line


def to_text(report: QualityReport) -> str:
    """Format the report for a terminal; titles and answers are one line each, without control characters."""
    data = report.data
    splits = ", ".join(f"{name} {percent(share, 1)} %" for name, share in data.coverage.items())
    lines = [
        f"views {report.measured.spec}",
        f"{data.split} split: {data.covered:,} of {data.examples:,} examples have every view, of "
        f"{data.sessions:,} sessions; {data.num_items:,} items",
        f"coverage: {splits}" + ("" if "test" in data.coverage else "; the test split was not read"),
        *([report.cost] if report.cost else []),
        "",
        report.verdict,
    ]
    for ranking, name in RANKINGS.items() if data.covered else ():
        lines += ["", f"The next item {name}, in %, [95 % interval over sessions; * differs from 0]"]
        rows = table_rows(report, ranking)
        lines += _grid(
            ["", *METRICS], [[row.label, *(row.cell(metric) for metric in METRICS)] for row in rows]
        )
    facts = [[label, *cells] for label, cells in view_facts(report)]
    lines += ["", *_grid(["", *(view.view for view in report.views)], facts)]
    for view in report.views:
        if view.answers and view.answers.frequent:
            lines += ["", f"Most frequent answers of the {view.view} view"]
            lines += [f"  {count:>6,}  {harmless(text)}" for text, count in view.answers.frequent]
    for place, sample in enumerate(report.samples, start=1):
        lines += ["", *_sample(sample, place, report)]
    # A store is untrusted input, and so are the names in it.
    return "\n".join("".join(filter(str.isprintable, line)) for line in lines)


class TableRow(NamedTuple):
    """A row of the table of hits: a ranking, or the difference of a view and its baseline."""

    label: str
    found: Mapping[str, Estimate]
    is_difference: bool = False
    starts_group: bool = False

    def side(self, metric: str) -> int:
        """Return 1 if a difference lies significantly above 0, -1 if below, else 0."""
        return significance(self.found[metric]) if self.is_difference else 0

    def cell(self, metric: str) -> str:
        """Format value and interval, with a star before a significant difference."""
        return ("* " if self.side(metric) else "") + estimate(self.found[metric], self.is_difference)


def table_rows(report: QualityReport, ranking: str) -> list[TableRow]:
    """List each view, its baseline and their difference, then the references.

    Args:
        report: Quality report.
        ranking: One of `RANKINGS`.
    """
    rows, listed = [], set()
    for view in report.views:
        rows.append(TableRow(view.own.name, getattr(view.own, ranking), starts_group=True))
        if view.baseline:
            listed.add(view.baseline.name)
            rows.append(TableRow(view.baseline.name, getattr(view.baseline, ranking)))
            rows.append(TableRow("difference", getattr(view, ranking), is_difference=True))
    rest = [one for one in report.references if one.name not in listed]
    return rows + [TableRow(one.name, getattr(one, ranking), starts_group=one is rest[0]) for one in rest]


def view_facts(report: QualityReport) -> list[tuple[str, list[str | None]]]:
    """List the counts of the views: a label and one cell per view; None where a count does not apply."""
    facts_of_views = [_facts_of(view, report) for view in report.views]
    labels = dict.fromkeys(label for facts in facts_of_views for label in facts)
    rows = [(label, [facts.get(label) for facts in facts_of_views]) for label in labels]
    return [(label, cells) for label, cells in rows if any(cell is not None for cell in cells)]


def harmless(text: str) -> str:
    """Return untrusted text as one short line without control sequences."""
    return sanitize_title(text, _WIDEST) if text.strip() else "(nothing)"


def estimate(found: Estimate, signs: bool = False) -> str:
    """Format a share with its interval in percent, or a difference in percentage points with its sign.

    >>> estimate(Estimate(0.1234, 0.1, 0.2)), estimate(Estimate(0.05, 0.01, 0.1), signs=True)
    ('12.3 [10.0, 20.0]', '+5.0 [+1.0, +10.0]')
    """
    points = [round(100 * value, 1) + 0.0 for value in found if value is not None]  # + 0.0: -0.0 becomes 0.0
    texts = [("+" if signs and value > 0 else "") + number(value, 1) for value in points]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "")


def _facts_of(view: ViewQuality, report: QualityReport) -> dict[str, str | None]:
    own, facts = view.own, view.answers
    cells: dict[str, str | None] = {
        f"items ranked first ({report.data.targets:,} different targets)": _count(own.distinct),
        "items among the titles of its views": _count(view.named),
        "a click of the session ranked first, %": None if own.echoes is None else percent(own.echoes, 1),
        "hits at 20 that its baseline misses, %": None
        if view.new_hits is None
        else percent(view.new_hits, 1),
    }
    if facts is None:
        return cells
    cells["answers (distinct sessions of the split)"] = _count(facts.answers)
    for label, count in (
        ("empty, %", facts.empty),
        ("cut at the token limit, %", facts.cut),
        ("not a title of the catalogue, %", facts.off_catalogue),
        ("names a title of its prompt, %", facts.repeats),
        ("different answers, %", facts.distinct),
    ):
        cells[label] = percent(facts.share(count), 1)
    for label, count in (
        ("prompt tokens an answer", facts.prompt_tokens),
        ("of them computed", facts.computed_tokens),
        ("answer tokens an answer", facts.answer_tokens),
    ):
        cells[label] = number(facts.share(count), 1)
    return cells


def _sample(sample: Sample, place: int, report: QualityReport) -> list[str]:
    story = sample.story
    lines = [f"Sample {place}: session {harmless(story.session_id)}"]
    lines += [f"  clicked   {sanitize_title(title, _WIDEST)}" for title in story.clicks]
    lines += [f"  next      {sanitize_title(story.target or '', _WIDEST)}"]
    for view, found in zip(story.views, sample.places, strict=True):
        other = "" if found.other_rank is None else f" ({found.other}: {rank(found.other_rank)})"
        lines.append(
            f"  {found.view} view has it at rank {rank(found.rank)} of {report.data.num_items:,}{other}"
        )
        if view.intent is not None:
            lines.append(f"    answer  {harmless(view.intent)}")
        lines += [
            f"    {number(one.weight):>5}   {sanitize_title(one.title, _WIDEST)}" for one in view.localised
        ]
    return lines


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    """Align the columns: the first to the left, the others to the right."""
    cells = [[cell or "" for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        f"  {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]
