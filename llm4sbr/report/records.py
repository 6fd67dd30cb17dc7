"""Contents of the demo's page, as plain frozen records without tensors and models."""

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
        name: Name of the model on the page.
        note: Description of the model in one sentence.
        metrics: Test metrics of the chosen epoch: ``test/recall@5`` and so on, in 0..1.
        history: One record per epoch: ``train/loss``, ``val/recall@20``, …; a metric may be absent.
        seconds_per_epoch: Mean wall-clock time per epoch, validation included.
        best_epoch: Epoch that validation chose, counted from 1.
        parameters: Number of trainable parameters.
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
        """Validation metrics of the chosen epoch: ``val/recall@5`` …; empty without a chosen epoch."""
        if self.best_epoch is None:
            return {}
        chosen = self.history[self.best_epoch - 1]
        return {name: value for name, value in chosen.items() if name.startswith("val/")}


class LocalisedTitle(NamedTuple):
    """A catalogue title that an intent was localised to (Eq. 4-5, arXiv:2402.13840), and its weight."""

    title: str
    weight: float


@dataclass(frozen=True)
class ViewStory:
    """One view of one session.

    Args:
        view: Name of the view, such as ``long_term``.
        intent: Answer of the LLM, verbatim.
        source: Source of the view: ``llm``, ``titles`` for the clicked titles, or ``none``.
        localised: Titles that the intent was localised to, in order of falling weight.
        gate: Weight of the interest that reads this view (Eq. 10-11); None if the fusion has no gates.
        share: Share of the view in the score of the first recommendation; all shares add up to 1. None if
            the score has no such parts (`llm4sbr.nn.fusion.shares`).
        prompt: Prompt that the LLM received.
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
    """Recommendations of one model for one session.

    Args:
        items: Recommended items, best first.
        target_rank: Rank of the true next item in the whole catalogue; ties give half ranks.
    """

    items: tuple[RankedItem, ...]
    target_rank: float | None = None


@dataclass(frozen=True)
class SessionStory:
    """One session from clicks to recommendations.

    Args:
        session_id: Session id in the data.
        clicks: Titles of the clicked items, oldest first.
        target: Title of the true next item; None if it is unknown.
        views: Views of the session.
        recommendations: Recommendations by model name.
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
        name: Name of the data set.
        num_items: Number of items ``V``.
        splits: Sizes of the splits.
        note: Description of the sessions and splits, in plain sentences.
    """

    name: str
    num_items: int
    splits: tuple[SplitFacts, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class IntentFacts:
    """Results and cost of stage 1.

    Args:
        llm: Name of the language model.
        encoder: Name of the text encoder.
        sessions: Number of distinct session prefixes that have an LLM answer for every view.
        requested: Number of session prefixes requested; more than ``sessions`` after the time limit.
        prompts: Number of prompts sent in this run.
        reused: Number of answers that were already in the store.
        answers: Counts of the answers in use, over all views.
        different: Number of different answers.
        frequent: The most frequent answers with their counts.
        seconds: Generation time of this run, in seconds.
        coverage: Share of examples with LLM views, by split.
        elsewhere: Views of the other examples, as the page names them.
    """

    llm: str
    encoder: str
    sessions: int = 0
    requested: int = 0
    prompts: int = 0
    reused: int = 0
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    different: int = 0
    frequent: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    coverage: Mapping[str, float] = field(default_factory=dict)
    elsewhere: str = "title views"

    @property
    def answers_per_second(self) -> float | None:
        """Prompts answered per second in this run; None if every answer was reused."""
        return self.prompts / self.seconds if self.prompts and self.seconds > 0 else None


@dataclass(frozen=True)
class DemoReport:
    """Contents of the page.

    Args:
        title: Heading of the page.
        data: Facts about the data set.
        intents: Facts about stage 1; None without it.
        runs: Results of the models; the first model is the baseline of the comparison.
        stories: A few sessions in full.
        story_choice: Description of how these sessions were chosen, in one sentence.
        timings: Name and seconds of each step.
        versions: Versions by package.
        command: Command that makes this page again.
        date: Date and time of the run.
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
