"""Engines: what answers prompts. One small protocol; each engine is one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from llm4sbr.views.spec import EngineIdentity


class Answer(NamedTuple):
    """What a language model said to one prompt."""

    text: str  # stripped; may be empty
    prompt_tokens: int
    answer_tokens: int
    finished: bool  # False where the answer was cut at the token limit


class Engine(Protocol):
    """What the pipeline asks of an engine."""

    @property
    def identity(self) -> EngineIdentity:
        """Everything about the engine that decides its answers, for the keys."""
        ...

    @property
    def batch_size(self) -> int:
        """Prompts that one call of `generate` takes well; the answers are saved after each call."""
        ...

    def generate(self, prompts: Sequence[str]) -> list[Answer]:
        """Answer every prompt, in order. The prompts are user text: no control token in them is obeyed."""
        ...
