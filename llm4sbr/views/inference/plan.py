"""Selection of the sessions of a run of stage 1, and the prompts that are still to be answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, ExampleSource, Split
from llm4sbr.contracts.ranges import NonNegativeInt, check_fields
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.sessions import Prefix, in_chains, session_keys
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.store.reading import StoreReader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec


@dataclass(frozen=True)
class Selection:
    """Selection of the sessions that a run queries the LLM about.

    Args:
        splits: Splits whose sessions are selected.
        limit: Maximum number of distinct sessions, including those already stored. The order is random by
            content and seed, so a larger limit extends a smaller one, evenly over the splits; the prefixes of
            one session are adjacent in it.
        only: Keys of the only sessions to select; None selects all.
        seed: Seed of the shuffle.

    Raises:
        InputError: The limit is negative, or a split is unknown.
    """

    splits: tuple[Split, ...] = SPLITS
    limit: NonNegativeInt | None = None
    only: Collection[bytes] | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if unknown := set(self.splits) - set(SPLITS):
            raise InputError(f"the splits are {', '.join(SPLITS)}", value=", ".join(sorted(unknown)))

    def choose(self, sessions: Mapping[bytes, Prefix]) -> list[bytes]:
        """Return the keys of the selected sessions, in query order."""
        wanted = sessions
        if self.only is not None:
            wanted = {key: sessions[key] for key in self.only if key in sessions}
        return in_chains(wanted, self.seed)[: self.limit]


ALL_SESSIONS = Selection()


class ViewPlan(NamedTuple):
    """Specification of a run's views, and its sessions."""

    spec: ViewSpec
    catalogue: Catalogue
    keys: dict[Split, list[bytes]]  # session key of every example, in example order
    sessions: dict[bytes, Prefix]  # every distinct session of the splits
    chosen: list[bytes]  # keys of the selected sessions, in query order

    def prompt(self, answer_spec: AnswerSpec, key: bytes) -> str:
        """Return the prompt of one view for one session."""
        return answer_spec.prompt(self.sessions[key], self.catalogue)

    def coverage(self, known: Collection[bytes]) -> dict[Split, float]:
        """Share of each split's examples whose session is among the given keys."""
        return {
            split: sum(key in known for key in part) / len(part) for split, part in self.keys.items() if part
        }

    def pending(self, store: StoreReader | None) -> list[str]:
        """Return the distinct prompts of chosen sessions that have no answer in the store."""
        prompts: dict[str, None] = {}
        for spec in self.spec.answers:
            done = {key for key, _ in store.answers(spec)} if store else set()
            prompts.update((self.prompt(spec, key), None) for key in self.chosen if key not in done)
        return list(prompts)


def view_spec(
    catalogue: Catalogue, encoder: TextEncoder, engine: Engine, prompts: PromptOptions, r: int
) -> ViewSpec:
    """Specify the views of an engine's answers.

    Raises:
        InputError: ``r`` is negative.
    """
    if r < 0:
        raise InputError("r must not be negative", value=r)
    answers = tuple(AnswerSpec.of(view, prompts, engine.identity) for view in prompts.views)
    names = tuple(view.name for view in prompts.views)
    return ViewSpec("llm", names, answers, encoder.identity, catalogue.fingerprint, r)


def plan_views(
    source: ExampleSource,
    *,
    encoder: TextEncoder,
    engine: Engine,
    prompts: PromptOptions = DEFAULT_PROMPTS,
    r: int = 5,
    sessions: Selection = ALL_SESSIONS,
) -> ViewPlan:
    """Select the sessions and specify their views; the arguments are those of `infer_views`.

    Raises:
        InputError: ``r`` is negative.
    """
    spec = view_spec(source.catalogue, encoder, engine, prompts, r)
    pairs = {split: session_keys(source, split) for split in sessions.splits}
    distinct = {key: prefix for part in pairs.values() for key, prefix in part}
    keys = {split: [key for key, _ in part] for split, part in pairs.items()}
    return ViewPlan(spec, source.catalogue, keys, distinct, sessions.choose(distinct))
