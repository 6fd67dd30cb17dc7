"""Stage 1 on a sample of sessions within a time limit, and the facts about it for the page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, ExampleSource, Split
from llm4sbr.report.records import IntentFacts
from llm4sbr.report.sessions import Example
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine, Reply
from llm4sbr.views.identity import EngineIdentity
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.inference.progress import Meter
from llm4sbr.views.inference.summary import AnswerCounts
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.spec import ViewSpec


class Subset:
    """Some examples of a data module, as an example source for stage 1.

    Args:
        source: Data module.
        chosen: Examples of the subset.
    """

    def __init__(self, source: ExampleSource, chosen: Sequence[Example]) -> None:
        self._source, self._chosen = source, chosen

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue of the data module."""
        return self._source.catalogue

    def examples(self, split: Split) -> Examples:
        """Return the chosen examples of one split."""
        every = self._source.examples(split)
        rows = np.array([example.row for example in self._chosen if example.split == split], dtype=np.int64)
        columns = (every.start, every.end, every.target, every.session)
        start, end, target, session = (column[rows] for column in columns)
        return Examples(every.clicks, start, end, target, session, every.session_ids, every.first_index)


class TimedEngine:
    """Engine that measures its generation time and, separately, its loading time, in seconds.

    Args:
        engine: Engine to measure.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = self.loading = 0.0

    @cached_property
    def identity(self) -> EngineIdentity:
        """Identity of the engine."""
        return self._engine.identity

    @property
    def batch_size(self) -> int:
        """Batch size of the engine."""
        return self._engine.batch_size

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Yield the answers of the engine; the first call loads the model with a prompt of its own."""
        began = time.perf_counter()
        if not self.loading:
            list(self._engine.generate(["Say a word."]))
            self.loading = time.perf_counter() - began
            began = time.perf_counter()
        for replies in self._engine.generate(prompts):
            self.seconds += time.perf_counter() - began
            yield replies
            began = time.perf_counter()
        self.seconds += time.perf_counter() - began


def pick_stories(
    source: ExampleSource, count: int, seed: int, clicks: tuple[int, int] = (4, 10), split: Split = "test"
) -> list[Example]:
    """Draw examples for the page, at most one per session.

    Args:
        source: Data module.
        count: Largest number of examples.
        seed: Seed of the draw.
        clicks: Preferred number of clicks, from and to; examples of other lengths come after these.
        split: Split to draw from.

    Raises:
        InputError: The split has no example.
    """
    examples = source.examples(split)
    if count and not len(examples):
        raise InputError("the split has no example to show", value=split)
    lengths = examples.end - examples.start
    order = np.random.default_rng(seed).permutation(len(examples))
    fitting = (lengths >= clicks[0]) & (lengths <= clicks[1])
    order = order[np.argsort(~fitting[order], kind="stable")]  # examples of the preferred length first
    _, first = np.unique(examples.session[order], return_index=True)
    return [Example(split, int(row)) for row in order[np.sort(first)][:count]]


def pick_sample(source: ExampleSource, count: int, seed: int, splits: Sequence[Split]) -> list[Example]:
    """Draw examples at random from all splits; a larger count extends a smaller one.

    It draws up to twice ``count``, because two examples may have the same clicks.
    """
    sizes = [len(source.examples(split)) for split in splits]
    every = [Example(split, row) for split, size in zip(splits, sizes, strict=True) for row in range(size)]
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[place] for place in order[: 2 * count].tolist()]


def infer_within(
    source: ExampleSource,
    store: ViewStore,
    chosen: Sequence[Example],
    *,
    limit: int,
    engine: Engine,
    encoder: TextEncoder,
    seconds: float,
    first: int = 0,
    prompts: PromptOptions = DEFAULT_PROMPTS,
    log: Callable[[str], None] = print,
) -> tuple[ViewSpec, IntentFacts]:
    """Infer the views of examples in their order, within a time limit.

    Args:
        source: Data module.
        store: Store of the answers and views; existing answers are reused.
        chosen: Examples to infer views for.
        limit: Largest number of distinct sessions.
        engine: Engine that answers the prompts.
        encoder: Text encoder of answers and titles.
        seconds: Time limit of generation, without loading; no batch of prompts starts after it.
        first: Number of leading distinct sessions of ``chosen`` that ignore both limits.
        prompts: One prompt per view, and the part of a session that it shows.
        log: Function that receives each line of output.

    Raises:
        KeyboardInterrupt: The run was stopped; the store keeps the answers so far.
    """
    timed = TimedEngine(engine)
    todo = _distinct(source, chosen)[: max(limit, first)]
    step = max(1, engine.batch_size // len(prompts.views))
    parts = [todo[:first]] if first else []
    parts += [todo[begin : begin + step] for begin in range(first, len(todo), step)]
    done, summaries = 0, []
    with Meter("querying the LLM", len(todo) * len(prompts.views)) as meter:
        for part in parts:
            if done >= max(first, 1) and timed.seconds >= seconds:
                log(
                    f"time limit of {seconds:.0f} s reached after {done} of {len(todo)} sessions; "
                    "run again to continue"
                )
                break
            summary = infer_views(
                Subset(source, part),
                store,
                encoder=encoder,
                engine=timed,
                prompts=prompts,
                progress=False,
            )
            if summary.interrupted:
                raise KeyboardInterrupt
            summaries.append(summary)
            done += len(part)
            meter.advance(len(part) * len(prompts.views))
    loaded = load_view_table(store, source, spec=summaries[-1].spec)
    texts = _texts(source, store, loaded.spec, todo[:done])
    facts = IntentFacts(
        llm=engine.identity.model.name,
        encoder=encoder.identity.name,
        sessions=done,
        requested=len(todo),
        prompts=sum(summary.usage.prompts for summary in summaries),
        reused=sum(summary.reused for summary in summaries),
        answers=sum((summary.answers for summary in summaries), AnswerCounts()),
        different=len(texts),
        frequent=tuple(texts.most_common(3)),
        seconds=timed.seconds,
        coverage={split: share for split, share in loaded.coverage.items() if split != "predict"},
    )
    rate = facts.answers_per_second
    log(
        f"{facts.answers.total} answers for {done} sessions, {facts.different} different; "
        f"{facts.prompts} prompts sent"
        + (f" at {rate:.1f}/s, after {timed.loading:.0f} s of loading" if rate else "")
        + f"; {facts.reused} answers reused"
    )
    return loaded.spec, facts


def _texts(
    source: ExampleSource, store: ViewStore, spec: ViewSpec, examples: Sequence[Example]
) -> Counter[str]:
    """Count each answer over the views of the examples."""
    return Counter(
        intent.text
        for split, row in examples
        for intent in store.intents(spec, source.catalogue, source.examples(split).prefix(row))
    )


def _distinct(source: ExampleSource, chosen: Sequence[Example]) -> list[Example]:
    """Return the first example of each distinct session: equal sessions get equal answers."""
    seen: dict[bytes, Example] = {}
    for split, row in chosen:
        key = source.catalogue.session_key(source.examples(split).prefix(row))
        seen.setdefault(key, Example(split, row))
    return list(seen.values())
