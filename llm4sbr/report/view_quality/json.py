"""The quality report as JSON, in the format of all benchmarks of this project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llm4sbr.report.view_quality.answers import AnswerFacts
from llm4sbr.report.view_quality.records import Estimate, QualityReport, significance
from llm4sbr.report.view_quality.text import RANKINGS

_SHARES = {
    "empty": "empty answers",
    "cut": "answers cut at the token limit",
    "off_catalogue": "answers that are no title of the catalogue",
    "repeats": "answers that name a title of their prompt",
    "distinct": "different answers",
}
_MEANS = {
    "prompt_tokens": "prompt tokens an answer",
    "computed_tokens": "prompt tokens computed an answer",
    "answer_tokens": "answer tokens an answer",
}
_COSTS = (
    ("seconds", "inference: machine time", "s"),
    ("prompts", "inference: prompts", "prompts"),
    ("prompt_tokens", "inference: prompt tokens", "tokens"),
    ("computed_tokens", "inference: prompt tokens computed", "tokens"),
    ("answer_tokens", "inference: answer tokens", "tokens"),
)


def to_json(report: QualityReport) -> str:
    """Format the figures as JSON text, without the titles and answers of the samples."""
    made = report.made
    contents = {
        "benchmark": "views-report",
        "command": made.command,
        "date": made.date,
        "machine": made.machine,
        "device": made.device,
        "versions": dict(made.versions),
        "verdict": report.verdict,
        "rows": list(_rows(report)),
    }
    return json.dumps(contents, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _rows(report: QualityReport) -> Iterator[dict[str, Any]]:
    data, views = f"{report.data.name}, {report.data.split} split", report.measured.spec
    yield _row("items", report.data.num_items, "items", data)
    yield _row("examples whose next item is known", report.data.examples, "examples", data)
    yield _row("examples with every view", report.data.covered, "examples", f"{data}; views {views}")
    yield _row("sessions of those", report.data.sessions, "sessions", data)
    for split, share in report.data.coverage.items():
        yield _row(f"{split} examples with every view", _percent(share), "%", "")
    for place, name in RANKINGS.items() if report.data.covered else ():
        for one in report.rankings:
            for metric, found in getattr(one, place).items():
                yield _estimate(f"{one.name}: {metric} {name}", found, "%", report)
        for view in report.views:
            other = view.baseline.name if view.baseline else ""
            for metric, found in getattr(view, place).items():
                what = f"{view.own.name} minus {other}: {metric} {name}"
                target = {"target": 0, "better": "higher", "met": significance(found) > 0}
                yield _estimate(what, found, "points", report) | target
    for view in report.views:
        name = f"{view.view} view"
        counts = {
            "items it ranks first": view.own.distinct,
            "items among its localised titles": view.named,
        }
        shares = {
            "one of the session's clicks is ranked first": view.own.echoes,
            "hits at 20 that its baseline misses": view.new_hits,
        }
        for what, count in counts.items():
            if count is not None:
                yield _row(f"{name}: {what}", count, "items", f"{report.data.covered} examples")
        for what, value in shares.items():
            if value is not None:
                yield _row(f"{name}: {what}", _percent(value), "%", f"{report.data.covered} examples")
        if view.answers is not None and view.answers.answers:
            yield from _answers(name, view.answers)
    for field, what, unit in _COSTS if report.runs else ():
        yield _row(what, round(sum(getattr(run, field) for run in report.runs), 1), unit, report.cost)
    yield _row("time of measuring", round(report.made.seconds, 1), "s", "")


def _answers(name: str, facts: AnswerFacts) -> Iterator[dict[str, Any]]:
    note = f"{facts.answers} answers"
    yield _row(f"{name}: answers", facts.answers, "answers", "distinct sessions of the split")
    for field, what in _SHARES.items():
        yield _row(f"{name}: {what}", _percent(getattr(facts, field) / facts.answers), "%", note)
    for field, what in _MEANS.items():
        yield _row(f"{name}: {what}", round(getattr(facts, field) / facts.answers, 1), "tokens", note)


def _estimate(what: str, found: Estimate, unit: str, report: QualityReport) -> dict[str, Any]:
    note = f"{report.data.covered} examples of {report.data.sessions} sessions"
    if found.low is not None and found.high is not None:
        note += f", 95 % interval {[_percent(found.low), _percent(found.high)]}, {report.draws} draws"
    return _row(what, _percent(found.value), unit, note)


def _row(what: str, value: float, unit: str, note: str) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "note": note}


def _percent(share: float) -> float:
    return round(100 * share, 3)
