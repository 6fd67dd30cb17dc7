"""Counts of a view's answers: empty, cut, off the catalogue, repeated. No model is needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.views.engines import Answer
from llm4sbr.views.inference.sessions import Prefix
from llm4sbr.views.inference.summary import flaws_of, normal_title
from llm4sbr.views.prompts import shown_titles, window
from llm4sbr.views.store.spec import AnswerSpec

_WORD = re.compile(r"\w+")
_ENOUGH = 4  # words of a title at the end of a cut answer that identify the title


@dataclass(frozen=True)
class AnswerFacts:
    """One view's answers to the distinct sessions of a split.

    Args:
        answers: Number of answers.
        empty: Number of answers without a word; their views are masked.
        cut: Number of answers that the token limit ended.
        off_catalogue: Number of answers that are no exact catalogue title (case, quotes and numbering aside).
        repeats: Number of answers that name a title of their own prompt word for word; see `repeats_a_title`.
        distinct: Number of distinct answers (case, quotes and numbering aside).
        frequent: The most frequent answers that occur more than once, with their counts.
        prompt_tokens: Prompt tokens, summed over the answers.
        computed_tokens: Prompt tokens that the model computed; the others were shared between prompts.
        answer_tokens: Answer tokens, summed over the answers.
    """

    answers: int = 0
    empty: int = 0
    cut: int = 0
    off_catalogue: int = 0
    repeats: int = 0
    distinct: int = 0
    frequent: tuple[tuple[str, int], ...] = ()
    prompt_tokens: int = 0
    computed_tokens: int = 0
    answer_tokens: int = 0

    def share(self, count: float) -> float | None:
        """Divide a count by the number of answers; None without answers."""
        return count / self.answers if self.answers else None


def count_answers(
    answered: Iterable[tuple[Prefix, Answer]],
    spec: AnswerSpec,
    catalogue: Catalogue,
    titles: frozenset[str],
    top: int = 5,
) -> AnswerFacts:
    """Count the properties of one view's answers.

    Args:
        answered: Sessions with their answers.
        spec: Spec of the answers, with the number of clicks and the title length in a prompt.
        catalogue: Catalogue with the titles.
        titles: Normalised catalogue titles, from `normal_titles`.
        top: Number of most frequent answers to list.
    """
    seen: Counter[str] = Counter()
    wording: dict[str, str] = {}
    empty = cut = made_up = repeats = prompt_tokens = computed = answer_tokens = 0
    for prefix, answer in answered:
        normal = normal_title(answer.text)
        seen[normal] += 1
        wording.setdefault(normal, answer.text)
        flaws = flaws_of(answer, titles)
        empty += flaws.empty
        cut += flaws.cut
        made_up += flaws.off_catalogue
        shown = {catalogue.title(item) for item in window(prefix, catalogue, spec.max_items)}
        repeats += repeats_a_title(answer, shown_titles(shown, spec.max_title_chars))
        prompt_tokens += answer.prompt_tokens
        computed += answer.computed_tokens
        answer_tokens += answer.answer_tokens
    return AnswerFacts(
        answers=seen.total(),
        empty=empty,
        cut=cut,
        off_catalogue=made_up,
        repeats=repeats,
        distinct=len(seen),
        frequent=tuple((wording[text], count) for text, count in seen.most_common(top) if count > 1),
        prompt_tokens=prompt_tokens,
        computed_tokens=computed,
        answer_tokens=answer_tokens,
    )


def repeats_a_title(answer: Answer, titles: Sequence[str]) -> bool:
    """Return whether an answer names one of the titles word for word, alone or within a sentence.

    The comparison ignores case and punctuation. A cut answer also counts if it breaks off inside a title,
    after at least four words of it.

    >>> repeats_a_title(Answer("You may like: Rose Soap, 3 oz!", 9, 9, 8, True), ["Rose Soap 3 Oz"])
    True
    >>> repeats_a_title(Answer("It is Very Fine Rose Soap 3 O", 9, 9, 9, False), ["Very Fine Rose Soap 3 Oz"])
    True
    >>> repeats_a_title(Answer("Rose Soapdish", 9, 9, 3, True), ["Rose Soap"])
    False
    """
    said = " ".join(_words(answer.text))
    for title in titles:
        words = _words(title)
        if words and f" {' '.join(words)} " in f" {said} ":
            return True
        if not answer.finished and _ends_within(said, words):
            return True
    return False


def _ends_within(said: str, words: list[str]) -> bool:
    """Return whether a text breaks off inside a title; its last word may be incomplete."""
    if len(words) < _ENOUGH:
        return False
    start = f" {said}".rfind(" " + " ".join(words[:_ENOUGH]))
    return start >= 0 and " ".join(words).startswith(said[start:])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
