"""What the demo's page shows, as plain frozen records: no tensors, no models, nothing to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llm4sbr.views.inference.summary import AnswerCounts

StorySource = Literal["llm", "titles", "none"]


@dataclass(frozen=True)
class RunResult:
    """One trained model.

    Args:
        name: What the model is called on the page.
        note: What it is, in a line.
        metrics: Test metrics of the chosen epoch: ``test/recall@5`` and so on, in 0..1.
        history: One record per epoch: ``train/loss``, ``val/recall@20``, …; a metric may be absent.
        seconds_per_epoch: Wall-clock time, validation included.
        best_epoch: The epoch that validation chose, counted from 1.
        parameters: Trainable parameters.
    """

    name: str
    note: str
    metrics: Mapping[str, float]
    history: tuple[Mapping[str, float], ...] = ()
    seconds_per_epoch: float | None = None
    best_epoch: int | None = None
    parameters: int | None = None

    @property
    def validation(self) -> Mapping[str, float]:
        """Validation metrics of the chosen epoch: ``val/recall@5`` and so on; empty where none is known."""
        if self.best_epoch is None:
            return {}
        chosen = self.history[self.best_epoch - 1]
        return {name: value for name, value in chosen.items() if name.startswith("val/")}


class LocalisedTitle(NamedTuple):
    """A catalogue title that an intent was localised to (Eq. 4-5, arXiv:2402.13840)."""

    title: str
    weight: float


@dataclass(frozen=True)
class ViewStory:
    """One view of one session.

    Args:
        view: Its name, ``long_term`` say.
        intent: What the LLM answered, verbatim.
        source: Where the view comes from: the LLM, the clicked titles, or nowhere.
        localised: The titles it was localised to, heaviest first.
        gate: Weight of the interest this view reads (Eq. 10-11); None where the fusion has no gates.
        share: Its share in the score of the first recommendation, 1 being all of it; None where a score has
            no such parts (`llm4sbr.nn.fusion.shares`).
        prompt: What the LLM was asked.
    """

    view: str
    intent: str | None = None
    source: StorySource = "none"
    localised: tuple[LocalisedTitle, ...] = ()
    gate: float | None = None
    share: float | None = None
    prompt: str | None = None


class RankedItem(NamedTuple):
    """One recommendation."""

    title: str
    score: float
    is_target: bool


@dataclass(frozen=True)
class RankedList:
    """What one model recommends in one session.

    Args:
        items: Best first.
        target_rank: Rank of the true next item in the whole catalogue, halves where scores tie.
    """

    items: tuple[RankedItem, ...]
    target_rank: float | None = None


@dataclass(frozen=True)
class SessionStory:
    """One session from clicks to recommendations.

    Args:
        session_id: The shop's id.
        clicks: Titles, oldest first.
        target: Title of the true next click, where it is known.
        views: One per view.
        recommendations: Model name to what it recommends.
    """

    session_id: str
    clicks: tuple[str, ...]
    target: str | None = None
    views: tuple[ViewStory, ...] = ()
    recommendations: Mapping[str, RankedList] = field(default_factory=dict)


class SplitFacts(NamedTuple):
    """Size of one split."""

    name: str
    sessions: int
    clicks: int
    examples: int


@dataclass(frozen=True)
class DataFacts:
    """The data set.

    Args:
        name: What it is called.
        num_items: ``V``.
        splits: Sizes.
        note: How sessions and splits were made.
    """

    name: str
    num_items: int
    splits: tuple[SplitFacts, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class IntentFacts:
    """What stage 1 did.

    Args:
        llm: Name of the language model.
        encoder: Name of the text encoder.
        sessions: Distinct session prefixes that have an LLM answer for every view.
        wanted: How many it was to be asked about; more than ``sessions`` where the time was up before.
        asked: Prompts sent in this run.
        reused: Answers that were in the store before.
        answers: What the answers in use look like, over all views.
        different: How many different answers there are.
        frequent: The most frequent answers and how often each was given.
        seconds: Time spent asking in this run.
        coverage: Share of each split's examples that have LLM views.
        elsewhere: What the other examples get.
    """

    llm: str
    encoder: str
    sessions: int = 0
    wanted: int = 0
    asked: int = 0
    reused: int = 0
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    different: int = 0
    frequent: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    coverage: Mapping[str, float] = field(default_factory=dict)
    elsewhere: str = "title views"

    @property
    def answers_per_second(self) -> float | None:
        """Prompts answered per second of this run; None if every answer was there before."""
        return self.asked / self.seconds if self.asked and self.seconds > 0 else None


@dataclass(frozen=True)
class DemoReport:
    """Everything on the page.

    Args:
        title: Heading.
        data: The data set.
        intents: Stage 1; None where it did not run.
        runs: The models; the first is the baseline that the others are held against.
        stories: A few sessions in full.
        story_choice: How those sessions were chosen.
        timings: Step and seconds.
        versions: Package and version.
        command: What makes this page again.
        date: When it was made.
    """

    title: str
    data: DataFacts
    intents: IntentFacts | None = None
    runs: tuple[RunResult, ...] = ()
    stories: tuple[SessionStory, ...] = ()
    story_choice: str = ""
    timings: tuple[tuple[str, float], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""
