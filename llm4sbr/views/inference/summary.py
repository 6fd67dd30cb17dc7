"""What a run of stage 1 did, and what its answers look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Split
from llm4sbr.views.engines import Answer
from llm4sbr.views.prompts import shown_titles
from llm4sbr.views.store.reading import RunRecord

_NUMBERING = re.compile(r"^\s*\d+[.)]\s+")


@dataclass
class ViewSummary:
    """Counts of one run; the answers are those of all selected sessions, asked now or before.

    Args:
        spec: Fingerprint of the views.
        source: ``llm`` or ``titles``.
        sessions: Distinct session prefixes in the chosen splits.
        selected: How many of them ``limit`` allows.
        reused: Their answers that were in the store before.
        asked: Prompts that went to the LLM in this run; equal prompts go once.
        answers: Answers of the selected sessions, over all views.
        empty: Answers without a word; their view is masked.
        unfinished: Answers cut at the token limit.
        off_catalogue: Answers that are no title of the catalogue (case, quotes and numbering aside).
        failures: Prompts of the selected sessions that got no answer for good, by reason.
        prompt_tokens: Tokens of this run's prompts.
        computed_tokens: Those of them that went through the model; the others were shared.
        answer_tokens: Tokens received in this run.
        seconds: Wall-clock time of asking and localising in this run.
        coverage: Share of each split's examples whose session has its views in the store.
        interrupted: The run was stopped and can be resumed.
    """

    spec: str
    source: str
    sessions: int = 0
    selected: int = 0
    reused: int = 0
    asked: int = 0
    answers: int = 0
    empty: int = 0
    unfinished: int = 0
    off_catalogue: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    computed_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    coverage: dict[Split, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def prompts_per_second(self) -> float:
        """Prompts asked per second of this run."""
        return self.asked / self.seconds if self.seconds else 0.0

    def take(self, records: Iterable[RunRecord]) -> None:
        """Take in what the processes of this run took; their time counts once."""
        for record in records:
            self.asked += record.prompts
            self.prompt_tokens += record.prompt_tokens
            self.computed_tokens += record.computed_tokens
            self.answer_tokens += record.answer_tokens
            self.seconds = max(self.seconds, record.seconds)

    def count(self, answers: Iterable[Answer], titles: frozenset[str]) -> None:
        """Take answers into the counts; `titles` come from `normal_titles`."""
        for answer in answers:
            self.answers += 1
            flaws = flaws_of(answer, titles)
            self.empty += flaws.empty
            self.unfinished += flaws.cut
            self.off_catalogue += flaws.off_catalogue

    def __str__(self) -> str:
        covered = ", ".join(f"{split} {share:.1%}" for split, share in self.coverage.items())
        lines = [f"views {self.spec[:12]} ({self.source}); coverage: {covered or 'none'}"]
        if self.source == "llm":
            share = 100 / max(self.answers, 1)
            lines += [
                f"{self.selected} of {self.sessions} distinct sessions selected; "
                f"{self.asked} prompts asked, {self.reused} answers reused",
                f"{self.answers} answers: {self.empty * share:.1f}% empty, "
                f"{self.unfinished * share:.1f}% cut, {self.off_catalogue * share:.1f}% off-catalogue",
                f"{self.prompt_tokens} prompt tokens, {self.computed_tokens} of them computed, "
                f"{self.answer_tokens} answer tokens, {self.seconds:.1f} s, "
                f"{self.prompts_per_second:.1f} prompts/s",
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
