"""Estimate tokens, cost and time without calling the LLM."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import NonNegativeFloat, PositiveInt, check_fields
from llm4sbr.views.engines.thoughts import template_options
from llm4sbr.views.quiet import quiet_transformers
from llm4sbr.views.weights import PACKAGES, model_folder, resolve

SAMPLE = 500  # prompts whose tokens are counted
_CHARS_PER_TOKEN = 4  # the usual approximation for English; other scripts have about a token a character
_NOT_LATIN = re.compile(r"[^\u0000-\u024f\u1e00-\u1eff\u2000-\u20cf]")  # nor punctuation and currencies


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of a prompt.

    Args:
        name: Description of the method, shown in the estimate.
        count: Function that returns the number of tokens of a prompt.
    """

    name: str
    count: Callable[[str], int]


@dataclass(frozen=True)
class Prices:
    """A provider's prices, in any currency; if only one is given, the other counts as 0.

    Args:
        price_in: Price of a million prompt tokens.
        price_out: Price of a million answer tokens.

    Raises:
        InputError: A price is negative.
    """

    price_in: NonNegativeFloat | None = None
    price_out: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float | None:
        """Cost of the given numbers of tokens; None without any price."""
        if self.price_in is None and self.price_out is None:
            return None
        return (prompt_tokens * (self.price_in or 0.0) + answer_tokens * (self.price_out or 0.0)) / 1e6


NO_PRICES = Prices()


@dataclass(frozen=True)
class Estimate:
    """Estimated tokens, cost and time of a run.

    Args:
        prompts: Number of prompts to send.
        prompt_tokens: Tokens of all prompts.
        answer_tokens: Upper bound of the answers' tokens: every answer has the maximum length.
        method: How the prompt tokens were counted.
        cost: Cost if every answer has the maximum length, in the currency of the prices; None without prices.
        seconds: Expected duration; None without a rate.
        exact: Whether every prompt's tokens were counted: the cost is then an upper bound.
    """

    prompts: int
    prompt_tokens: int
    answer_tokens: int
    method: str
    cost: float | None = None
    seconds: float | None = None
    exact: bool = False

    def __str__(self) -> str:
        lines = [
            f"{self.prompts:,} prompts",
            f"{self.prompt_tokens:,} prompt tokens ({self.method})",
            f"{self.answer_tokens:,} answer tokens at most",
        ]
        if self.cost is not None:
            cost = f"{self.cost:,.2f} at most" if self.exact else f"about {self.cost:,.2f}"
            lines.append(f"cost: {cost}, at the prices given")
        if self.seconds is not None:
            lines.append(f"time: about {_duration(self.seconds)}")
        return "\n".join(lines)


def estimate(
    prompts: Sequence[str],
    max_new_tokens: PositiveInt,
    counter: TokenCounter | None = None,
    prices: Prices = NO_PRICES,
    prompts_per_second: float | None = None,
) -> Estimate:
    """Estimate tokens, cost and time from up to 500 prompts, sampled with a fixed seed.

    Args:
        prompts: All prompts to send; only sampled ones are read, so the sequence may be lazy.
        max_new_tokens: Maximum length of an answer in tokens.
        counter: Counter from `token_counter`; without one, four characters of Latin script count as a token,
            and any other character as one.
        prices: Prices of tokens; without any, no cost is estimated.
        prompts_per_second: Rate of an earlier run.

    Raises:
        InputError: ``max_new_tokens`` is negative, or ``prompts_per_second`` is not above 0.

    >>> print(estimate(["abcd" * 10] * 2000, max_new_tokens=24, prices=Prices(1.0, 2.0)))
    2,000 prompts
    20,000 prompt tokens (4 Latin characters a token, an estimate; from 500 prompts, ± 0.0 %)
    48,000 answer tokens at most
    cost: about 0.12, at the prices given
    """
    if max_new_tokens < 0:
        raise InputError("max_new_tokens must not be negative", value=max_new_tokens)
    if prompts_per_second is not None and not prompts_per_second > 0:
        raise InputError("prompts_per_second must be above 0", value=prompts_per_second)
    exact = counter is not None
    counter = counter or TokenCounter(
        f"{_CHARS_PER_TOKEN} Latin characters a token, an estimate", _by_characters
    )
    total = len(prompts)
    # A random sample: views alternate, so equal steps could miss a view.
    rows = random.Random(0).sample(range(total), SAMPLE) if total > SAMPLE else range(total)
    counts = [counter.count(prompts[row]) for row in rows]
    mean = sum(counts) / len(counts) if counts else 0.0
    prompt_tokens, answer_tokens = round(mean * total), total * max_new_tokens
    return Estimate(
        prompts=total,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        method=counter.name if len(counts) == total else f"{counter.name}; {_precision(counts, mean)}",
        cost=prices.cost(prompt_tokens, answer_tokens),
        seconds=None if prompts_per_second is None else total / prompts_per_second,
        exact=exact and len(counts) == total,
    )


def token_counter(model: str) -> TokenCounter | None:
    """Count with the model's tokenizer and chat template if they are on this machine; downloads nothing.

    Args:
        model: Local folder, installed weights package, or the name of a model in the hub's local cache.

    Returns:
        The counter, or None if the tokenizer is not on this machine or cannot be read.
    """
    package = PACKAGES.get(model)
    here = Path(model).expanduser().exists() or (package is not None and package.find() is not None)
    try:
        with quiet_transformers():
            from transformers import AutoTokenizer

            folder = model_folder(resolve(model)) if here else model
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception:  # not here or not readable: `estimate` falls back to characters and says so
        return None

    def count(prompt: str) -> int:
        if tokenizer.chat_template:
            chat = [{"role": "user", "content": prompt}]
            options = template_options(str(tokenizer.chat_template), None)
            prompt = tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, **options
            )
        return len(tokenizer(prompt, add_special_tokens=not tokenizer.chat_template).input_ids)

    return TokenCounter(f"counted with the tokenizer of {model}", count)


def _by_characters(prompt: str) -> int:
    foreign = len(_NOT_LATIN.findall(prompt))
    return foreign + math.ceil((len(prompt) - foreign) / _CHARS_PER_TOKEN)


def _precision(counts: Sequence[int], mean: float) -> str:
    """Format the sample's size and the half width of the mean's 95 % confidence interval."""
    variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
    half = 1.96 * math.sqrt(variance / len(counts))
    return f"from {len(counts)} prompts, ± {100 * half / mean if mean else 0:.1f} %"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
