"""Engines that answer prompts: one small protocol, and one file per engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from llm4sbr.views.identity import EngineIdentity


class Choice(NamedTuple):
    """One of several answers to a prompt."""

    text: str
    probability: float  # probabilities of one prompt's answers sum to at most 1


class Answer(NamedTuple):
    """A language model's answer to one prompt."""

    text: str  # the best answer, stripped; may be empty
    prompt_tokens: int
    computed_tokens: int  # prompt tokens that the model computed for this answer; the rest were reused
    answer_tokens: int
    finished: bool  # False if the token limit cut the answer
    choices: tuple[Choice, ...] = ()  # best first; empty if the engine gives one answer per prompt


class Failure(NamedTuple):
    """A prompt without an answer after all retries."""

    reason: str


class Reply(NamedTuple):
    """Outcome of one prompt."""

    place: int  # index of the prompt in the list given to `generate`
    outcome: Answer | Failure


class Engine(Protocol):
    """Interface between the pipeline and a language model."""

    @property
    def identity(self) -> EngineIdentity:
        """Everything about the engine that can change its answers; part of their keys."""
        ...

    @property
    def batch_size(self) -> int:
        """Recommended number of prompts per call of `generate`; more of them share more computation."""
        ...

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Answer every prompt once; yields groups of replies in any order, and the caller saves each group.

        Closing the iterator stops the work. Prompts are user text: control tokens in them have no effect.
        """
        ...
