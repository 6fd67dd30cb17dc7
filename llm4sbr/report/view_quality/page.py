"""The quality report as a page: one self-contained HTML file in the style of the demo's."""

from __future__ import annotations

from llm4sbr.report.page import fill
from llm4sbr.report.view_quality.records import QualityReport
from llm4sbr.report.view_quality.statistics import METRICS
from llm4sbr.report.view_quality.text import RANKINGS, estimate, table_rows, view_facts


def render(report: QualityReport) -> str:
    """Render the page as a string. Text from the data and from the LLM is escaped."""
    return fill(
        "quality.html",
        report=report,
        metrics=METRICS,
        forests=[(metric, _top(report, metric)) for metric in METRICS if metric.startswith("hit")],
        tables=[(label, table_rows(report, ranking)) for ranking, label in RANKINGS.items()],
        facts=view_facts(report),
        estimate=estimate,
    )


def _top(report: QualityReport, metric: str) -> float:
    """Return the right end of a chart's axis: the largest upper end of all intervals."""
    found = [one.every[metric] for one in report.rankings if metric in one.every]
    return max((one.high if one.high is not None else one.value for one in found), default=0) or 1.0
