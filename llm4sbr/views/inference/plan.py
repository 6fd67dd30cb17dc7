"""Which sessions a run of stage 1 is about, and what is left to ask about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, ExampleSource, Split
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.sessions import Prefix, in_chains, session_keys
from llm4sbr.views.prompts import DEFAULT_TEMPLATES, PROMPT_VERSION, ViewTemplate, build_prompt
from llm4sbr.views.store.reading import StoreReader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec


class ViewPlan(NamedTuple):
    """What a run makes, and of which sessions."""

    spec: ViewSpec
    catalogue: Catalogue
    keys: dict[Split, list[bytes]]  # of every example, in example order
    sessions: dict[bytes, Prefix]  # every distinct session of the splits
    chosen: list[bytes]  # those that may be asked about, in the order of asking

    def prompt(self, answer_spec: AnswerSpec, key: bytes) -> str:
        """What one view asks of one session."""
        return build_prompt(
            ViewTemplate(answer_spec.view, answer_spec.template),
            self.sessions[key],
            self.catalogue,
            max_items=answer_spec.max_items,
            max_title_chars=answer_spec.max_title_chars,
        )

    def coverage(self, known: Collection[bytes]) -> dict[Split, float]:
        """Share of each split's examples whose session is among some keys."""
        return {
            split: sum(key in known for key in part) / len(part) for split, part in self.keys.items() if part
        }

    def pending(self, store: StoreReader | None) -> list[str]:
        """The distinct prompts of chosen sessions that no answer in the store belongs to."""
        prompts: dict[str, None] = {}
        for spec in self.spec.answers:
            done = {key for key, _ in store.answers(spec)} if store else set()
            prompts.update((self.prompt(spec, key), None) for key in self.chosen if key not in done)
        return list(prompts)


def plan_views(
    source: ExampleSource,
    *,
    encoder: TextEncoder,
    engine: Engine,
    templates: Sequence[ViewTemplate] = DEFAULT_TEMPLATES,
    r: int = 5,
    limit: int | None = None,
    only: Collection[bytes] | None = None,
    splits: Sequence[Split] = SPLITS,
    seed: int = 0,
    max_items: int = 20,
    max_title_chars: int = 100,
) -> ViewPlan:
    """Choose the sessions and name what makes their views; the arguments are those of `infer_views`.

    Raises:
        InputError: An argument is out of range, or two templates have one name.
    """
    if r < 0 or (limit is not None and limit < 0) or max_items < 1 or max_title_chars < 1:
        raise InputError(
            "r and limit must not be negative, max_items and max_title_chars at least 1",
            value=(r, limit, max_items, max_title_chars),
        )
    names = tuple(view.name for view in templates)
    if not names or len(set(names)) != len(names):
        raise InputError("each view needs one template, and each its own name", value=names)
    answers = tuple(
        AnswerSpec(
            view=view.name,
            template=view.template,
            engine=engine.identity,
            max_items=view.max_items or max_items,
            max_title_chars=max_title_chars,
            prompt_version=PROMPT_VERSION,
        )
        for view in templates
    )
    spec = ViewSpec("llm", names, answers, encoder.identity, source.catalogue.fingerprint, r)
    pairs = {split: session_keys(source, split) for split in splits}
    sessions = {key: prefix for part in pairs.values() for key, prefix in part}
    wanted = sessions if only is None else {key: sessions[key] for key in only if key in sessions}
    keys = {split: [key for key, _ in part] for split, part in pairs.items()}
    return ViewPlan(spec, source.catalogue, keys, sessions, in_chains(wanted, seed)[:limit])
