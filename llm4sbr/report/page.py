"""The page: one self-contained HTML file that asks nothing of the network."""

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
class Held:
    """One metric of every model on one split."""

    values: tuple[float | None, ...]
    lifts: tuple[float | None, ...]  # of every model but the first, relative to the first
    best: int | None  # None where models tie or nothing is known


@dataclass(frozen=True)
class Row:
    """One metric of the comparison table."""

    metric: str
    validation: Held  # at the chosen epoch
    test: Held


def write_page(report: DemoReport, path: str | Path) -> Path:
    """Render and write the page, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    return write_text(path, render(report))


def render(report: DemoReport) -> str:
    """The page as a string. Everything that came with the data is escaped."""
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
    """Fill a template of this folder. Everything that came with the data is escaped."""
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
    return without_controls(page)  # titles from data may hold them


def comparison(runs: Sequence[RunResult]) -> list[Row]:
    """The rows of the table: every metric of validation and test, as percentages of 1, by kind and K."""
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
            _held([validation.get(f"val/{name}") for validation, _ in splits]),
            _held([test.get(f"test/{name}") for _, test in splits]),
        )
        for name in sorted(names, key=_order)
    ]


def verdict(runs: Sequence[RunResult], rows: Sequence[Row]) -> str:
    """Where the last model stands against the first, one sentence a split."""
    if len(runs) < 2:
        return ""
    return " ".join(
        sentence
        for split, lifts in (
            ("validation", [(row.metric, row.validation.lifts[-1]) for row in rows]),
            ("test", [(row.metric, row.test.lifts[-1]) for row in rows]),
        )
        if (sentence := _standing(split, lifts, runs[-1].name, runs[0].name))
    )


def charts(runs: Sequence[RunResult]) -> list[str]:
    """Training curves: validation metrics of every model, then the losses."""
    drawn = [
        line_chart(f"chart-{key}", title, f"{title}, %", _lines(runs, f"val/{key}@20", 100))
        for key, title in (("recall", "Validation Recall@20"), ("mrr", "Validation MRR@20"))
    ]
    loss = [
        # The wrapped model's own loss has alignment and uniformity in it; cross-entropy compares.
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
    """The report for a machine; what is not finite becomes null."""
    cleaned = _finite(asdict(report))
    assert isinstance(cleaned, dict)
    if cleaned["intents"] is not None:
        cleaned["intents"] = dict(_intents(cleaned["intents"]))
    return cleaned


def percent(value: float | None, digits: int = 2) -> str:
    """``0.1234`` as ``12.34``; a dash where nothing is known."""
    return number(100 * value if value is not None else None, digits)


def signed(lift: float | None) -> str:
    """A relative change as ``+12.3 %``, with a true minus sign."""
    if lift is None or not math.isfinite(lift):
        return _NONE
    text = f"{abs(100 * lift):.1f}"
    return "0.0\u202f%" if float(text) == 0 else f"{'+' if lift > 0 else _MINUS}{text}\u202f%"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number with a true minus sign; a dash where nothing is known."""
    if value is None or not math.isfinite(value):
        return _NONE
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def rank(value: float) -> str:
    """A rank without ``.0``; halves stay."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """``74`` as ``1 min 14 s``, ``4000`` as ``1 h 7 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def bar_share(weight: float) -> str:
    """Width of a bar for a weight, in percent of its track: 0..100."""
    return f"{100 * min(max(weight, 0.0), 1.0):.1f}" if math.isfinite(weight) else "0"


def _intents(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The counts of answers beside the other facts."""
    for name, value in facts.items():
        if name == "answers":
            yield name, value["total"]
            yield from ((count, value[count]) for count in ("empty", "off_catalogue"))
        else:
            yield name, value


def _standing(split: str, lifts: Sequence[tuple[str, float | None]], name: str, base: str) -> str:
    known = [(metric, lift) for metric, lift in lifts if lift is not None]
    if not known:
        return ""
    ahead = sum(lift > 0 for _, lift in known)
    behind = [metric for metric, lift in known if lift < 0]
    return f"On the {split} split {name} is ahead of {base} in {ahead} of {len(known)} metrics" + (
        f" and behind in {', '.join(behind)}." if behind else "."
    )


def _held(found: Sequence[float | None]) -> Held:
    values = tuple(value if value is not None and math.isfinite(value) else None for value in found)
    base = values[0]
    lifts = tuple(value / base - 1 if value is not None and base else None for value in values[1:])
    top = max((value for value in values if value is not None), default=None)
    leaders = [place for place, value in enumerate(values) if value is not None and value == top]
    return Held(values, lifts, leaders[0] if len(leaders) == 1 and len(values) > 1 else None)


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
    """Values by epoch of the first of the metrics that the run has."""
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
