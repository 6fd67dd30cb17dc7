"""Counts of a run of stage 1: what it took, and what its answers look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from operator import add
from typing import NamedTuple

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Split
from llm4sbr.views.engines import Answer
from llm4sbr.views.prompts import shown_titles
from llm4sbr.views.store.reading import RunRecord

_NUMBERING = re.compile(r"^\s*\d+[.)]\s+")


@dataclass(frozen=True)
class AnswerCounts:
    """What some answers look like; counts add up.

    Args:
        total: How many there are.
        empty: Without a word; their view is masked.
        unfinished: Cut at the token limit.
        off_catalogue: No title of the catalogue (case, quotes and numbering aside).
    """

    total: int = 0
    empty: int = 0
    unfinished: int = 0
    off_catalogue: int = 0

    @classmethod
    def of(cls, answers: Iterable[Answer], titles: frozenset[str]) -> AnswerCounts:
        """Count answers; `titles` come from `normal_titles`."""
        total = empty = unfinished = off_catalogue = 0
        for answer in answers:
            flaws = flaws_of(answer, titles)
            total += 1
            empty += flaws.empty
            unfinished += flaws.cut
            off_catalogue += flaws.off_catalogue
        return cls(total, empty, unfinished, off_catalogue)

    def __add__(self, other: AnswerCounts) -> AnswerCounts:
        return AnswerCounts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Usage:
    """What the LLM's answers cost in one run, over all its processes.

    Args:
        prompts: Prompts that went to the LLM; equal prompts go once.
        prompt_tokens: Tokens of these prompts.
        computed_tokens: Those of them that went through the model; the others were shared.
        answer_tokens: Tokens received.
        seconds: Wall-clock time of asking and localising.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, records: Iterable[RunRecord]) -> Usage:
        """Add up what processes took that ran at the same time: their time counts once."""
        every = list(records)
        return cls(
            prompts=sum(record.prompts for record in every),
            prompt_tokens=sum(record.prompt_tokens for record in every),
            computed_tokens=sum(record.computed_tokens for record in every),
            answer_tokens=sum(record.answer_tokens for record in every),
            seconds=max((record.seconds for record in every), default=0.0),
        )

    @property
    def prompts_per_second(self) -> float:
        """Prompts asked per second."""
        return self.prompts / self.seconds if self.seconds else 0.0


@dataclass
class ViewSummary:
    """Counts of one run; the answers are those of all selected sessions, asked now or before.

    Args:
        spec: Fingerprint of the views.
        source: ``llm`` or ``titles``.
        sessions: Distinct session prefixes in the chosen splits.
        selected: How many of them the selection allows.
        reused: Their answers that were in the store before.
        usage: What this run asked, and what that took.
        answers: Answers of the selected sessions, over all views.
        failures: Prompts of the selected sessions that got no answer for good, by reason.
        coverage: Share of each split's examples whose session has its views in the store.
        interrupted: The run was stopped and can be resumed.
    """

    spec: str
    source: str
    sessions: int = 0
    selected: int = 0
    reused: int = 0
    usage: Usage = field(default_factory=Usage)
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    failures: Counter[str] = field(default_factory=Counter)
    coverage: dict[Split, float] = field(default_factory=dict)
    interrupted: bool = False

    def __str__(self) -> str:
        covered = ", ".join(f"{split} {share:.1%}" for split, share in self.coverage.items())
        lines = [f"views {self.spec[:12]} ({self.source}); coverage: {covered or 'none'}"]
        if self.source == "llm":
            usage, answers = self.usage, self.answers
            share = 100 / max(answers.total, 1)
            lines += [
                f"{self.selected} of {self.sessions} distinct sessions selected; "
                f"{usage.prompts} prompts asked, {self.reused} answers reused",
                f"{answers.total} answers: {answers.empty * share:.1f}% empty, "
                f"{answers.unfinished * share:.1f}% cut, {answers.off_catalogue * share:.1f}% off-catalogue",
                f"{usage.prompt_tokens} prompt tokens, {usage.computed_tokens} of them computed, "
                f"{usage.answer_tokens} answer tokens, {usage.seconds:.1f} s, "
                f"{usage.prompts_per_second:.1f} prompts/s",
            ]
            failed = sum(self.failures.values())
            if failed:
                worst = "; ".join(f"{count} x {reason}" for reason, count in self.failures.most_common(5))
                lines.append(f"{failed} answers failed, listed in the store; run again to retry: {worst}")
        if self.interrupted:
            lines.append("stopped early: what was answered is kept; run the same command to go on")
        return "\n".join(lines)


class Flaws(NamedTuple):
    """What may be wrong with an answer."""

    empty: bool  # without a word; its view is masked
    cut: bool  # ended by the token limit
    off_catalogue: bool  # a text, and no title of the catalogue


def flaws_of(answer: Answer, titles: frozenset[str]) -> Flaws:
    """Look at one answer; `titles` come from `normal_titles`."""
    made_up = bool(answer.text) and normal_title(answer.text) not in titles
    return Flaws(not answer.text, not answer.finished, made_up)


def normal_title(text: str) -> str:
    """A title or answer without case, quotes, numbering and closing dot.

    >>> normal_title('2. "Rose  Soap."') == normal_title("rose soap")
    True
    """
    text = " ".join(_NUMBERING.sub("", text).split()).casefold()
    return text.strip("\"'`“”‘’«».… ")


def normal_titles(catalogue: Catalogue, max_title_chars: int) -> frozenset[str]:
    """The titles an answer may match: as they are, and as prompts show them."""
    whole = (title for title in catalogue.titles if title.strip())
    shown = shown_titles(catalogue.titles, max_title_chars)
    return frozenset(normal_title(title) for title in (*whole, *shown))
