"""Stage 1 on a sample of sessions and within a time limit, and what the report tells of it."""

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


class Sample:
    """A few examples of a data module, as a source of their own: what stage 1 is asked about.

    Args:
        source: The data module.
        chosen: Which examples.
    """

    def __init__(self, source: ExampleSource, chosen: Sequence[Example]) -> None:
        self._source, self._chosen = source, chosen

    @property
    def catalogue(self) -> Catalogue:
        """The data module's."""
        return self._source.catalogue

    def examples(self, split: Split) -> Examples:
        """The chosen examples of one split."""
        every = self._source.examples(split)
        rows = np.array([example.row for example in self._chosen if example.split == split], dtype=np.int64)
        columns = (every.start, every.end, every.target, every.session)
        start, end, target, session = (column[rows] for column in columns)
        return Examples(every.clicks, start, end, target, session, every.session_ids, every.first_index)


class TimedEngine:
    """An engine whose time is taken, its loading apart.

    Args:
        engine: Any engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = self.loading = 0.0

    @cached_property
    def identity(self) -> EngineIdentity:
        """The engine's."""
        return self._engine.identity

    @property
    def batch_size(self) -> int:
        """The engine's."""
        return self._engine.batch_size

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """The engine's answers."""
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
    """Draw examples to show in full: of so many clicks where there are such, each of another session.

    Raises:
        InputError: The split has no example.
    """
    examples = source.examples(split)
    if count and not len(examples):
        raise InputError("there is no example to tell a story of", value=split)
    lengths = examples.end - examples.start
    order = np.random.default_rng(seed).permutation(len(examples))
    fitting = (lengths >= clicks[0]) & (lengths <= clicks[1])
    order = order[np.argsort(~fitting[order], kind="stable")]  # the fitting first, else whatever there is
    _, first = np.unique(examples.session[order], return_index=True)
    return [Example(split, int(row)) for row in order[np.sort(first)][:count]]


def pick_sample(source: ExampleSource, count: int, seed: int, splits: Sequence[Split]) -> list[Example]:
    """Draw examples evenly over the splits; a larger count extends a smaller one.

    More than ``count`` are drawn where there are, since two examples may have the same clicks.
    """
    sizes = [len(source.examples(split)) for split in splits]
    every = [Example(split, row) for split, size in zip(splits, sizes, strict=True) for row in range(size)]
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[place] for place in order[: 2 * count].tolist()]


def ask(
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
    tell: Callable[[str], None] = print,
) -> tuple[ViewSpec, IntentFacts]:
    """Infer the views of some examples, in their order, until they or the time are used up.

    Args:
        source: The data module.
        store: Where answers and views go; what is there is not asked again.
        chosen: The examples.
        limit: At most so many distinct sessions.
        engine: Answers prompts.
        encoder: Embeds answers and titles.
        seconds: No further batch is asked after this much time of asking, the model's loading aside.
        first: So many of ``chosen`` are asked about in any case.
        prompts: The questions, one per view, and what they show of a session.
        tell: Called with lines on what happened.

    Raises:
        KeyboardInterrupt: The run was stopped; what was answered is kept.
    """
    timed = TimedEngine(engine)
    todo = _distinct(source, chosen)[: max(limit, first)]
    step = max(1, engine.batch_size // len(prompts.views))
    parts = [todo[:first]] if first else []
    parts += [todo[begin : begin + step] for begin in range(first, len(todo), step)]
    done, summaries = 0, []
    with Meter("asking", len(todo) * len(prompts.views)) as meter:
        for part in parts:
            if done >= max(first, 1) and timed.seconds >= seconds:
                tell(f"{seconds:.0f} s are over: {done} of {len(todo)} sessions; run again to go on")
                break
            summary = infer_views(
                Sample(source, part),
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
        wanted=len(todo),
        asked=sum(summary.usage.prompts for summary in summaries),
        reused=sum(summary.reused for summary in summaries),
        answers=sum((summary.answers for summary in summaries), AnswerCounts()),
        different=len(texts),
        frequent=tuple(texts.most_common(3)),
        seconds=timed.seconds,
        coverage={split: share for split, share in loaded.coverage.items() if split != "predict"},
    )
    rate = facts.answers_per_second
    tell(
        f"{facts.answers.total} answers for {done} sessions, {facts.different} different; "
        f"{facts.asked} prompts asked"
        + (f" at {rate:.1f}/s after {timed.loading:.0f} s of loading" if rate else "")
        + f"; {facts.reused} answers reused"
    )
    return loaded.spec, facts


def _texts(source: ExampleSource, store: ViewStore, spec: ViewSpec, asked: Sequence[Example]) -> Counter[str]:
    """How often each answer was given, over the views of the examples."""
    return Counter(
        intent.text
        for split, row in asked
        for intent in store.intents(spec, source.catalogue, source.examples(split).prefix(row))
    )


def _distinct(source: ExampleSource, chosen: Sequence[Example]) -> list[Example]:
    """The first example of each session content: the answers of equal sessions are equal."""
    seen: dict[bytes, Example] = {}
    for split, row in chosen:
        key = source.catalogue.session_key(source.examples(split).prefix(row))
        seen.setdefault(key, Example(split, row))
    return list(seen.values())
