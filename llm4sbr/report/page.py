"""The page of the demo: one self-contained HTML file that loads nothing from the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.text import without_controls
from llm4sbr.report.charts import Line, line_chart
from llm4sbr.report.records import DemoReport, RunResult

_MINUS, _NONE = "\u2212", "\u2013"
_METRICS = {"recall": "Recall", "mrr": "MRR", "ndcg": "NDCG"}
_VIEWS = {"long_term": "Long-term intent", "short_term": "Short-term intent"}


@dataclass(frozen=True)
class MetricValues:
    """One metric of every model on one split."""

    values: tuple[float | None, ...]
    lifts: tuple[float | None, ...]  # of each model after the first, relative to the first
    best: int | None  # index of the best model; None for a tie or without values


@dataclass(frozen=True)
class Row:
    """One metric of the comparison table."""

    metric: str
    validation: MetricValues  # at the chosen epoch
    test: MetricValues


def write_page(report: DemoReport, path: str | Path) -> Path:
    """Render the page and write it atomically.

    Raises:
        InputError: The file cannot be written.
    """
    return write_text(path, render(report))


def render(report: DemoReport) -> str:
    """Render the page as a string. Text from the data and from the LLM is escaped."""
    from markupsafe import Markup

    rows = comparison(report.runs)
    return fill(
        "page.html",
        report=report,
        rows=rows,
        verdict=verdict(report.runs, rows),
        charts=[Markup(chart) for chart in charts(report.runs)],
        total=sum(seconds for _, seconds in report.timings),
    )


def fill(template: str, **values: object) -> str:
    """Fill a template of this folder. Text from the data and from the LLM is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, signed=signed, number=number, rank=rank, duration=duration, share=bar_share
    )
    page = environment.get_template(template).render(view_title=lambda name: _VIEWS.get(name, name), **values)
    return without_controls(page)  # a title may contain characters that HTML forbids


def comparison(runs: Sequence[RunResult]) -> list[Row]:
    """Return the rows of the table: every metric of validation and test, in 0..1, ordered by kind and K."""
    splits = [(run.validation, run.metrics) for run in runs]
    names = dict.fromkeys(
        name.split("/", 1)[1]
        for found in splits
        for metrics, split in zip(found, ("val/", "test/"), strict=True)
        for name in metrics
        if name.startswith(split)
    )
    return [
        Row(
            _label(name),
            _metric_values([validation.get(f"val/{name}") for validation, _ in splits]),
            _metric_values([test.get(f"test/{name}") for _, test in splits]),
        )
        for name in sorted(names, key=_order)
    ]


def verdict(runs: Sequence[RunResult], rows: Sequence[Row]) -> str:
    """Compare the last model with the first, in one sentence per split."""
    if len(runs) < 2:
        return ""
    return " ".join(
        sentence
        for split, lifts in (
            ("validation", [(row.metric, row.validation.lifts[-1]) for row in rows]),
            ("test", [(row.metric, row.test.lifts[-1]) for row in rows]),
        )
        if (sentence := _comparison_sentence(split, lifts, runs[-1].name, runs[0].name))
    )


def charts(runs: Sequence[RunResult]) -> list[str]:
    """Draw the training curves: validation metrics of every model, then the losses."""
    drawn = [
        line_chart(f"chart-{key}", title, f"{title}, %", _lines(runs, f"val/{key}@20", 100))
        for key, title in (("recall", "Validation Recall@20"), ("mrr", "Validation MRR@20"))
    ]
    loss = [
        # The total loss of a wrapped model includes alignment and uniformity; cross-entropy is comparable.
        Line(run.name, _series(run, "train/rec_loss", "train/loss"), colour)
        for colour, run in enumerate(runs)
    ]
    drawn.append(line_chart("chart-loss", "Training loss", "cross-entropy, nats", loss))
    heads = [
        Line(name if len(runs) < 3 else f"{name}, {run.name}", _series(run, f"train/{name}"), colour)
        for run in runs
        for colour, name in enumerate(("alignment", "uniformity"), start=2)
    ]
    drawn.append(line_chart("chart-heads", "Alignment and uniformity loss", "loss, no unit", heads))
    return [chart for chart in drawn if chart is not None]


def to_json(report: DemoReport) -> dict[str, Any]:
    """Return the report as plain values for JSON; numbers that are not finite become null."""
    cleaned = _finite(asdict(report))
    assert isinstance(cleaned, dict)
    if cleaned["intents"] is not None:
        cleaned["intents"] = dict(_intents(cleaned["intents"]))
    return cleaned


def percent(value: float | None, digits: int = 2) -> str:
    """Format a share in percent: ``0.1234`` as ``12.34``; None as a dash."""
    return number(100 * value if value is not None else None, digits)


def signed(lift: float | None) -> str:
    """Format a relative change, such as ``+12.3 %``, with a typographic minus sign; None as a dash."""
    if lift is None or not math.isfinite(lift):
        return _NONE
    text = f"{abs(100 * lift):.1f}"
    return "0.0\u202f%" if float(text) == 0 else f"{'+' if lift > 0 else _MINUS}{text}\u202f%"


def number(value: float | None, digits: int = 2) -> str:
    """Format a number with a typographic minus sign; None as a dash."""
    if value is None or not math.isfinite(value):
        return _NONE
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def rank(value: float) -> str:
    """Format a rank: without decimals, or with one for half ranks."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Format a duration: ``74`` as ``1 min 14 s``, ``4000`` as ``1 h 7 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def bar_share(weight: float) -> str:
    """Format the width of a weight's bar, in percent of its track: 0..100."""
    return f"{100 * min(max(weight, 0.0), 1.0):.1f}" if math.isfinite(weight) else "0"


def _intents(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the facts with the counts of answers among them, not nested."""
    for name, value in facts.items():
        if name == "answers":
            yield name, value["total"]
            yield from ((count, value[count]) for count in ("empty", "off_catalogue"))
        else:
            yield name, value


def _comparison_sentence(split: str, lifts: Sequence[tuple[str, float | None]], name: str, base: str) -> str:
    known = [(metric, lift) for metric, lift in lifts if lift is not None]
    if not known:
        return ""
    ahead = sum(lift > 0 for _, lift in known)
    behind = [metric for metric, lift in known if lift < 0]
    return f"On the {split} split {name} is ahead of {base} in {ahead} of {len(known)} metrics" + (
        f" and behind in {', '.join(behind)}." if behind else "."
    )


def _metric_values(found: Sequence[float | None]) -> MetricValues:
    values = tuple(value if value is not None and math.isfinite(value) else None for value in found)
    base = values[0]
    lifts = tuple(value / base - 1 if value is not None and base else None for value in values[1:])
    top = max((value for value in values if value is not None), default=None)
    leaders = [place for place, value in enumerate(values) if value is not None and value == top]
    return MetricValues(values, lifts, leaders[0] if len(leaders) == 1 and len(values) > 1 else None)


def _label(name: str) -> str:
    kind, _, k = name.partition("@")
    return _METRICS.get(kind, kind) + (f"@{k}" if k else "")


def _order(name: str) -> tuple[int, str, int]:
    kind, _, k = name.partition("@")
    known = list(_METRICS)
    return (known.index(kind) if kind in known else len(known), kind, int(k) if k.isdigit() else 0)


def _lines(runs: Sequence[RunResult], metric: str, factor: float) -> list[Line]:
    return [
        Line(run.name, tuple(factor * value for value in _series(run, metric)), colour)
        for colour, run in enumerate(runs)
    ]


def _series(run: RunResult, *metrics: str) -> tuple[float, ...]:
    """Return the values by epoch of the first of the metrics that the run has."""
    known = next((name for name in metrics if any(name in epoch for epoch in run.history)), metrics[0])
    return tuple(float(epoch.get(known, math.nan)) for epoch in run.history)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
