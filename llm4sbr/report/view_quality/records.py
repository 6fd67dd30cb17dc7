"""Contents of the report of ``llm4sbr views report``, as plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llm4sbr.report.page import duration
from llm4sbr.report.records import SessionStory
from llm4sbr.report.view_quality.answers import AnswerFacts
from llm4sbr.views.store.reading import RunRecord

MAIN = "hit@20"  # the metric that decides the verdict
Kind = Literal["view", "titles", "popular", "random"]


class Estimate(NamedTuple):
    """A mean over examples with its 95 % interval; the ends are None where no interval exists."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RankingQuality:
    """How well one way of ranking the catalogue finds the true next item.

    Args:
        name: Name of the ranking.
        kind: A stored view, titles alone, popularity, or chance.
        every: Mean of each metric, in 0..1, when all items are ranked.
        unclicked: Mean of each metric, in 0..1, when the session's own clicks are left out of the ranking.
            Both mappings are empty if no example is covered.
        distinct: Number of distinct items ranked first, over the examples.
        echoes: Share of examples in which the first item is one of the session's own clicks.
    """

    name: str
    kind: Kind
    every: Mapping[str, Estimate] = field(default_factory=dict)
    unclicked: Mapping[str, Estimate] = field(default_factory=dict)
    distinct: int | None = None
    echoes: float | None = None


@dataclass(frozen=True)
class ViewQuality:
    """A view, compared with its baseline on the same examples.

    Args:
        view: Name of the view, such as ``long_term``.
        own: Quality of the view.
        baseline: Quality of the baseline: the clicked titles; popularity for a view that is made of titles.
        every: Difference view minus baseline, by metric, with a paired interval.
        unclicked: The same difference with the session's own clicks left out.
        new_hits: Share of examples whose target is in the first 20 of the view but not of the baseline.
        named: Number of distinct items whose titles the views were localised to; None without localisation.
        answers: Facts about the LLM's answers; None without an LLM.
    """

    view: str
    own: RankingQuality
    baseline: RankingQuality | None = None
    every: Mapping[str, Estimate] = field(default_factory=dict)
    unclicked: Mapping[str, Estimate] = field(default_factory=dict)
    new_hits: float | None = None
    named: int | None = None
    answers: AnswerFacts | None = None


class ViewPlace(NamedTuple):
    """Rank of the target of one example, by a view and by its baseline."""

    view: str
    rank: float  # in 1..V, among all items
    other: str | None  # name of the baseline
    other_rank: float | None


@dataclass(frozen=True)
class Sample:
    """An example in full."""

    story: SessionStory
    places: tuple[ViewPlace, ...]


@dataclass(frozen=True)
class MeasuredViews:
    """The views that are measured.

    Args:
        store: Folder of the store.
        spec: Description of the views' spec, in one line.
        source: ``llm`` or ``titles``.
        encoder: Name of the text encoder.
        r: Titles per view; 0 if a view is the embedding of the answer itself.
        model: Name of the language model; empty without one.
    """

    store: str
    spec: str
    source: str
    encoder: str
    r: int
    model: str = ""


@dataclass(frozen=True)
class MeasuredData:
    """The examples that the views are measured on.

    Args:
        name: Class name of the data module.
        split: Split of the examples.
        num_items: Number of items ``V``.
        examples: Number of examples of the split with a known target.
        covered: Number of these examples with every view known; all figures are over them.
        sessions: Number of sessions that the covered examples come from; the bootstrap draws sessions.
        targets: Number of distinct targets of the covered examples.
        coverage: Share of examples with every view known, by split, for the splits that were read.
    """

    name: str
    split: str
    num_items: int
    examples: int
    covered: int
    sessions: int
    targets: int = 0
    coverage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Command, machine and versions that made a report.

    Args:
        command: Command that makes the report again.
        date: ISO date.
        machine: Processor and number of threads.
        device: Device of the measurement.
        seconds: Wall-clock time of the measurement.
        versions: Versions by package.
    """

    command: str = ""
    date: str = ""
    machine: str = ""
    device: str = ""
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityReport:
    """Contents of a quality report.

    Args:
        measured: The views that are measured.
        data: The examples that they are measured on.
        views: Quality of each view.
        references: Quality of popularity and of chance, on the same examples.
        samples: A few examples in full.
        runs: Records of the runs of stage 1; a run that was killed has none.
        draws: Number of bootstrap samples of each interval.
        seed: Seed of the bootstrap and of the samples.
        made: Command, machine and versions.
    """

    measured: MeasuredViews
    data: MeasuredData
    views: tuple[ViewQuality, ...] = ()
    references: tuple[RankingQuality, ...] = ()
    samples: tuple[Sample, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    draws: int = 0
    seed: int = 0
    made: Provenance = field(default_factory=Provenance)

    @property
    def verdict(self) -> str:
        """The conclusion in one sentence; the intervals decide it."""
        if not self.data.covered:
            return f"No example of the {self.data.split} split has its views in the store: nothing to judge."
        sentence = "; ".join(_clause(view, self) for view in self.views) + "."
        return sentence[0].upper() + sentence[1:]

    @property
    def cost(self) -> str:
        """Time and tokens of stage 1 in one sentence; empty without records."""
        if not self.runs:
            return ""
        prompts, seconds = sum(run.prompts for run in self.runs), sum(run.seconds for run in self.runs)
        total, computed = (
            sum(run.prompt_tokens for run in self.runs),
            sum(run.computed_tokens for run in self.runs),
        )
        machines = ", ".join(dict.fromkeys(run.machine for run in self.runs))
        return (
            f"Inference took {duration(seconds)} of machine time ({machines}): {prompts:,} prompts at "
            f"{prompts / max(seconds, 1e-9):.1f}/s; {computed:,} of {total:,} prompt tokens were computed, "
            f"{sum(run.answer_tokens for run in self.runs):,} answer tokens."
        )

    @property
    def rankings(self) -> tuple[RankingQuality, ...]:
        """Each view before its baseline, then the references; a baseline of two views appears once."""
        pairs = [one for view in self.views for one in (view.own, view.baseline)]
        every = [one for one in pairs if one is not None and one not in self.references]
        return tuple({one.name: one for one in [*every, *self.references]}.values())


def significance(difference: Estimate) -> int:
    """Return 1 if the interval lies above 0, -1 if below, and 0 if it contains 0 or does not exist.

    >>> significance(Estimate(0.1, 0.02, 0.2)), significance(Estimate(0.1, -0.1, 0.3))
    (1, 0)
    """
    low, high = difference.low, difference.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return 0
    return int(low > 0) - int(high < 0)


def _clause(view: ViewQuality, report: QualityReport) -> str:
    """Return the verdict on one view."""
    found, name = view.own.every[MAIN], f"the {view.view} view"
    chance = next((one.every[MAIN].value for one in report.references if one.kind == "random"), 0.0)
    if found.low is None:
        return f"{name} is known in one session only: too few for a verdict"
    lost = ", no better than chance" if found.low <= chance else ""
    if view.baseline is None:
        return f"{name} has the next item in its first 20 in {100 * found.value:.1f} % of the examples{lost}"
    other, side = view.baseline.name, significance(view.every[MAIN])
    shares = f"({100 * found.value:.1f} % against {100 * view.baseline.every[MAIN].value:.1f} % in 20{lost})"
    if side == 0 or (side > 0 and lost):
        more = "" if report.data.covered == report.data.examples else ": views of more sessions may decide"
        return f"{name} does not differ significantly from {other} {shares}{more}"
    judged = {1: "worth training on", -1: "not worth training on yet"}[side]
    if view.own.kind == "titles":
        judged = "the baseline for an LLM's view"
    often = "more" if side > 0 else "less"
    return f"{name} finds the next item significantly {often} often than {other} {shares}: {judged}"
