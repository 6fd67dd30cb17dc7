"""Summary of a run of stage 1: cost, and counts of empty, cut and off-catalogue answers."""

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
    """Counts of answers and their flaws; instances can be added.

    Args:
        total: Number of answers.
        empty: Number of empty answers; their view is masked.
        unfinished: Number of answers cut at the token limit.
        off_catalogue: Number of answers that match no title of the catalogue (ignoring case, quotes and
            numbering).
    """

    total: int = 0
    empty: int = 0
    unfinished: int = 0
    off_catalogue: int = 0

    @classmethod
    def of(cls, answers: Iterable[Answer], titles: frozenset[str]) -> AnswerCounts:
        """Count answers and their flaws; ``titles`` come from `normal_titles`."""
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
    """Cost of the LLM's answers in one run, over all its processes.

    Args:
        prompts: Number of prompts sent to the LLM; equal prompts are sent once.
        prompt_tokens: Number of tokens of these prompts.
        computed_tokens: Number of prompt tokens that the model computed; the others were shared.
        answer_tokens: Number of tokens of the answers.
        seconds: Wall-clock time of querying and localising.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, records: Iterable[RunRecord]) -> Usage:
        """Add up the records of concurrent processes; the time is that of the slowest one."""
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
        """Prompts answered per second."""
        return self.prompts / self.seconds if self.seconds else 0.0


@dataclass
class ViewSummary:
    """Counts of one run; the answers are those of all selected sessions, from this run or earlier ones.

    Args:
        spec: Fingerprint of the views.
        source: Source of the views, ``llm`` or ``titles``.
        sessions: Number of distinct session prefixes in the chosen splits.
        selected: Number of sessions in the selection.
        reused: Number of answers of selected sessions that were in the store before the run.
        usage: Prompts, tokens and time of this run.
        answers: Counts of the answers of the selected sessions, over all views.
        failures: Number of prompts of the selected sessions without an answer after all retries, by reason.
        coverage: Share of each split's examples whose session has its views in the store.
        interrupted: Whether the run was stopped and can be resumed.
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
                f"{usage.prompts} prompts sent, {self.reused} answers reused",
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
            lines.append("stopped early: the answers so far are kept; run the same command to continue")
        return "\n".join(lines)


class Flaws(NamedTuple):
    """Flaws of an answer."""

    empty: bool  # no text; its view is masked
    cut: bool  # ended by the token limit
    off_catalogue: bool  # a text that matches no title of the catalogue


def flaws_of(answer: Answer, titles: frozenset[str]) -> Flaws:
    """Find the flaws of an answer; ``titles`` come from `normal_titles`."""
    made_up = bool(answer.text) and normal_title(answer.text) not in titles
    return Flaws(not answer.text, not answer.finished, made_up)


def normal_title(text: str) -> str:
    """Normalise a title or answer: remove case, quotes, numbering and the closing dot.

    >>> normal_title('2. "Rose  Soap."') == normal_title("rose soap")
    True
    """
    text = " ".join(_NUMBERING.sub("", text).split()).casefold()
    return text.strip("\"'`“”‘’«».… ")


def normal_titles(catalogue: Catalogue, max_title_chars: int) -> frozenset[str]:
    """Normalised titles that an answer may match: the original ones, and as prompts show them."""
    whole = (title for title in catalogue.titles if title.strip())
    shown = shown_titles(catalogue.titles, max_title_chars)
    return frozenset(normal_title(title) for title in (*whole, *shown))
