"""Engines: what answers prompts. One small protocol; each engine is one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from llm4sbr.views.identity import EngineIdentity


class Choice(NamedTuple):
    """One of several answers to a prompt."""

    text: str
    probability: float  # of this answer; those of one prompt sum to at most 1


class Answer(NamedTuple):
    """What a language model said to one prompt."""

    text: str  # the best answer, stripped; may be empty
    prompt_tokens: int
    computed_tokens: int  # prompt tokens that went through the model for it; the rest were reused
    answer_tokens: int
    finished: bool  # False where the answer was cut at the token limit
    choices: tuple[Choice, ...] = ()  # best first, where the engine was asked for more than one answer


class Failure(NamedTuple):
    """A prompt that got no answer, for good: what was tried is used up."""

    reason: str


class Reply(NamedTuple):
    """What became of one prompt."""

    place: int  # of the prompt in the list that was asked
    outcome: Answer | Failure


class Engine(Protocol):
    """What the pipeline asks of an engine."""

    @property
    def identity(self) -> EngineIdentity:
        """Everything about the engine that decides its answers, for the keys."""
        ...

    @property
    def batch_size(self) -> int:
        """Prompts that one call of `generate` takes well; more give the engine more to share and to sort."""
        ...

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Answer every prompt once, a group at a time in any order; the caller saves a group as it comes.

        Closing the iterator stops the work. The prompts are user text: no control token in them is obeyed.
        """
        ...
