"""What ``llm4sbr views report`` tells of a store's views, as plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llm4sbr.report.page import duration
from llm4sbr.report.records import SessionStory
from llm4sbr.report.view_quality.answers import AnswerFacts
from llm4sbr.views.store.reading import RunRecord

MAIN = "hit@20"  # the measure that the verdict goes by
Kind = Literal["view", "titles", "popular", "random"]


class Estimate(NamedTuple):
    """A mean over examples with its 95 % interval; None where no interval can be had."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RankingQuality:
    """How well one way of ranking the catalogue finds the true next item.

    Args:
        name: What it is.
        kind: A stored view, titles alone, popularity, or chance.
        every: Metric to its mean, in 0..1, over all items.
        unclicked: The same with the session's own clicks left out of the ranking. Both are empty where no
            example is covered.
        distinct: How many different items it ranks first, over the examples.
        echoes: Share of examples in which it ranks one of the session's own clicks first.
    """

    name: str
    kind: Kind
    every: Mapping[str, Estimate] = field(default_factory=dict)
    unclicked: Mapping[str, Estimate] = field(default_factory=dict)
    distinct: int | None = None
    echoes: float | None = None


@dataclass(frozen=True)
class ViewQuality:
    """One view, held against its baseline on the same examples.

    Args:
        view: Its name, ``long_term`` say.
        own: The view.
        baseline: What it has to beat: the titles it was made from; popularity where it is titles itself.
        every: View minus baseline, metric by metric; the interval is a paired one.
        unclicked: The same with the session's own clicks left out.
        new_hits: Share of examples whose target the view has in its first 20 and the baseline has not.
        named: Different items among the titles that the views were localised to; None without localisation.
        answers: What the LLM's answers look like; None without an LLM.
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
    """Where the target of one example stands in a view's ranking and in its baseline's."""

    view: str
    rank: float  # in 1..V, among all items
    other: str | None  # the baseline's name
    other_rank: float | None


@dataclass(frozen=True)
class Sample:
    """One example in full."""

    story: SessionStory
    places: tuple[ViewPlace, ...]


@dataclass(frozen=True)
class MeasuredViews:
    """Which views are measured.

    Args:
        store: The store's folder.
        spec: Which views of it, in a line.
        source: ``llm`` or ``titles``.
        encoder: The text encoder.
        r: Titles per view; 0 where the answer's own embedding is kept.
        model: The language model; empty without one.
    """

    store: str
    spec: str
    source: str
    encoder: str
    r: int
    model: str = ""


@dataclass(frozen=True)
class MeasuredData:
    """On which examples.

    Args:
        name: The data module.
        split: Whose examples are measured.
        num_items: ``V``.
        examples: Examples of the split with a known target.
        covered: Those of them with every view known: all figures are over these.
        sessions: Sessions that the covered examples come from; the bootstrap draws these.
        targets: Different targets of the covered examples.
        coverage: Share of a split's examples with every view known, for the splits that were looked at.
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
    """What made a report.

    Args:
        command: What makes it again.
        date: ISO date.
        machine: Processor and threads.
        device: Where it was measured.
        seconds: Wall-clock time of measuring.
        versions: Package and version.
    """

    command: str = ""
    date: str = ""
    machine: str = ""
    device: str = ""
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityReport:
    """Everything that a quality report says.

    Args:
        measured: Which views.
        data: On which examples.
        views: One per view.
        references: Popularity and chance, on the same examples.
        samples: A few examples in full.
        runs: What asking took; runs that were killed left no record.
        draws: Bootstrap samples behind each interval.
        seed: Seed of the bootstrap and of the samples.
        made: What made the report.
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
        """One sentence that the intervals decide."""
        if not self.data.covered:
            return f"No example of the {self.data.split} split has its views in the store: nothing to judge."
        sentence = "; ".join(_clause(view, self) for view in self.views) + "."
        return sentence[0].upper() + sentence[1:]

    @property
    def cost(self) -> str:
        """What asking took, in a sentence; empty where nothing is on record."""
        if not self.runs:
            return ""
        prompts, seconds = sum(run.prompts for run in self.runs), sum(run.seconds for run in self.runs)
        total, computed = (
            sum(run.prompt_tokens for run in self.runs),
            sum(run.computed_tokens for run in self.runs),
        )
        machines = ", ".join(dict.fromkeys(run.machine for run in self.runs))
        return (
            f"Asking took {duration(seconds)} of machine time ({machines}): {prompts:,} prompts at "
            f"{prompts / max(seconds, 1e-9):.1f}/s; {computed:,} of {total:,} prompt tokens were computed, "
            f"{sum(run.answer_tokens for run in self.runs):,} answer tokens."
        )

    @property
    def rankings(self) -> tuple[RankingQuality, ...]:
        """Each view before its baseline, the references last; what two views share is told once."""
        pairs = [one for view in self.views for one in (view.own, view.baseline)]
        every = [one for one in pairs if one is not None and one not in self.references]
        return tuple({one.name: one for one in [*every, *self.references]}.values())


def significance(difference: Estimate) -> int:
    """1 where the interval lies above 0, -1 where below, 0 where nothing is decided.

    >>> significance(Estimate(0.1, 0.02, 0.2)), significance(Estimate(0.1, -0.1, 0.3))
    (1, 0)
    """
    low, high = difference.low, difference.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return 0
    return int(low > 0) - int(high < 0)


def _clause(view: ViewQuality, report: QualityReport) -> str:
    """What the intervals say of one view."""
    found, name = view.own.every[MAIN], f"the {view.view} view"
    chance = next((one.every[MAIN].value for one in report.references if one.kind == "random"), 0.0)
    if found.low is None:
        return f"{name} is known in one session only, too little to say anything"
    lost = ", no better than chance" if found.low <= chance else ""
    if view.baseline is None:
        return f"{name} has the next item in its first 20 in {100 * found.value:.1f} % of the examples{lost}"
    other, side = view.baseline.name, significance(view.every[MAIN])
    shares = f"({100 * found.value:.1f} % against {100 * view.baseline.every[MAIN].value:.1f} % in 20{lost})"
    if side == 0 or (side > 0 and lost):
        more = "" if report.data.covered == report.data.examples else ": views of more sessions would tell"
        return f"{name} cannot be told apart from {other} {shares}{more}"
    judged = {1: "worth training on", -1: "not worth training on yet"}[side]
    if view.own.kind == "titles":
        judged = "what an LLM's view has to beat"
    often = "more" if side > 0 else "less"
    return f"{name} finds the next item significantly {often} often than {other} {shares}: {judged}"
