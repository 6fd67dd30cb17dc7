"""Stories of sessions: clicks, inferred intents, and the recommendations of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch, batch_prefixes
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Examples, ExampleSource, Split
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.report.evaluation_hooks import Seen, evaluation_hooks
from llm4sbr.report.records import (
    LocalisedTitle,
    RankedItem,
    RankedList,
    SessionStory,
    StorySource,
    ViewStory,
)
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.reading import Intent
from llm4sbr.views.store.spec import ViewSpec


class Example(NamedTuple):
    """An example of a data module: its split and its row in that split."""

    split: Split
    row: int


class ViewFacts(NamedTuple):
    """Facts about each view of one session in a wrapped model."""

    gates: Sequence[float | None]
    shares: Sequence[float | None]  # shares in the score of the first recommendation
    seen: Sequence[bool]  # whether the model had a view


def batch_of(examples: Examples, rows: Sequence[int]) -> SessionBatch:
    """Make a batch of some examples; a backbone that needs the session graph builds it.

    Shapes:
        - output: ``item_ids (B, L)`` with ``L`` the longest prefix
    """
    return batch_prefixes(
        [examples.prefix(row) for row in rows],
        [int(examples.target[row]) for row in rows],
        [examples.first_index + row for row in rows],
        graph=False,
    )


@torch.inference_mode()
def session_stories(
    source: ExampleSource,
    chosen: Sequence[Example],
    models: Mapping[str, SBRModule],
    store: ViewStore,
    spec: ViewSpec,
    top_k: int = 10,
) -> tuple[SessionStory, ...]:
    """Collect the stories of some examples for the page.

    Args:
        source: Data module.
        chosen: Examples to describe.
        models: Trained models by name; gates and shares are those of the first wrapped one.
        store: View store with the intents.
        spec: Spec of the views.
        top_k: Number of recommendations per model.
    """
    stories = []
    for example in chosen:
        examples = source.examples(example.split)
        batch = batch_of(examples, [example.row])
        prefix, target = examples.prefix(example.row), int(examples.target[example.row])
        intents = {intent.view: intent for intent in store.intents(spec, source.catalogue, prefix)}
        prompts = {answer.view: answer.prompt(prefix, source.catalogue) for answer in spec.answers}
        seen = {name: _evaluate(model, batch) for name, model in models.items()}
        wrapped = next((one for one in seen.values() if one.sides is not None), None)
        stories.append(
            SessionStory(
                session_id=examples.session_id(example.row),
                clicks=tuple(source.catalogue.title(item) for item in prefix),
                target=source.catalogue.title(target) if target else None,
                views=view_stories(
                    spec.views, intents, view_facts(wrapped, 0, len(spec.views)), prompts, source.catalogue
                ),
                recommendations={
                    name: ranked_list(one.scores[0], target, source.catalogue, top_k)
                    for name, one in seen.items()
                },
            )
        )
    return tuple(stories)


def view_stories(
    views: Sequence[str],
    intents: Mapping[str, Intent],
    facts: ViewFacts,
    prompts: Mapping[str, str],
    catalogue: Catalogue,
) -> tuple[ViewStory, ...]:
    """Describe each view of one session.

    Args:
        views: Names of the views.
        intents: Intents of the session in the store, by view.
        facts: Facts about each view in the model.
        prompts: Prompts by view.
        catalogue: Catalogue with the titles.
    """
    stories = []
    for view, gate, share, seen in zip(views, *facts, strict=True):
        intent = intents.get(view)
        # An empty answer has no titles; the model then reads the fallback view, if there is one.
        source: StorySource = "llm" if intent and intent.ids else "titles" if seen else "none"
        localised = (
            tuple(
                LocalisedTitle(catalogue.title(item), weight)
                for item, weight in zip(intent.ids, intent.weights, strict=True)
            )
            if intent
            else ()
        )
        text, prompt = (intent.text, prompts.get(view)) if intent else (None, None)
        stories.append(ViewStory(view, text, source, localised, gate, share, prompt))
    return tuple(stories)


def _evaluate(model: SBRModule, batch: SessionBatch) -> Seen:
    found: list[Seen] = []
    with evaluation_hooks(model.eval(), found.append):
        model.finite_scores(batch, model(batch))
    return found[0]


def ranked_list(scores: Tensor, target: int, catalogue: Catalogue, top_k: int = 10) -> RankedList:
    """Return the top items of one session and the rank of the true next item.

    Shapes:
        - scores: ``(V,)``
    """
    best, columns = scores.topk(min(top_k, len(scores)))
    items = tuple(
        RankedItem(catalogue.title(column + 1), score, column + 1 == target)
        for column, score in zip(columns.tolist(), best.tolist(), strict=True)
    )
    rank = target_ranks(scores.unsqueeze(0), torch.tensor([target])).item() if target else None
    return RankedList(items, rank)


def view_facts(seen: Seen | None, place: int, views: int) -> ViewFacts:
    """Return the facts about each view of one session; without a wrapped model they are empty."""
    nothing: list[float | None] = [None] * views
    if seen is None or seen.sides is None:
        return ViewFacts(nothing, nothing, [False] * views)
    gates = seen.sides.gates
    return ViewFacts(
        nothing if gates is None else gates[place].tolist(),
        seen.shares(place) or nothing,
        seen.sides.mask[place].tolist(),
    )
