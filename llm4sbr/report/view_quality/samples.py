"""A few examples in full: clicks, the LLM's answers, their localised titles, and the true next item."""

from __future__ import annotations

import numpy as np

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Examples
from llm4sbr.report.records import LocalisedTitle, SessionStory, ViewStory
from llm4sbr.report.view_quality.measure import Measured, view_name
from llm4sbr.report.view_quality.records import Sample, ViewPlace
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.spec import ViewSpec


def draw_samples(
    catalogue: Catalogue,
    store: ViewStore,
    spec: ViewSpec,
    examples: Examples,
    measured: Measured,
    count: int,
    seed: int,
) -> tuple[Sample, ...]:
    """Draw covered examples at random, one per session, and describe them in full.

    Args:
        catalogue: Catalogue with the titles.
        store: View store with the answers.
        spec: Spec of the views.
        examples: Examples of the split.
        measured: Covered examples and their ranks.
        count: Largest number of samples.
        seed: Seed of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(measured.rows))
    session = examples.session[measured.rows[order]]
    chosen = order[np.sort(np.unique(session, return_index=True)[1])[:count]]
    return tuple(_sample(catalogue, store, spec, examples, measured, int(place)) for place in chosen)


def _sample(
    catalogue: Catalogue, store: ViewStore, spec: ViewSpec, examples: Examples, measured: Measured, place: int
) -> Sample:
    row = int(measured.rows[place])
    prefix = examples.prefix(row)
    found = store.intents(spec, catalogue, prefix) if spec.answers else []
    intents = {intent.view: intent for intent in found}
    stories = []
    for view in spec.views:
        intent = intents.get(view)
        pairs = zip(intent.ids, intent.weights, strict=True) if intent else ()
        localised = tuple(LocalisedTitle(catalogue.title(item), weight) for item, weight in pairs)
        stories.append(ViewStory(view, intent and intent.text, "llm" if intent else "titles", localised))
    places = []
    for held in measured.views:
        other = held.baseline.name if held.baseline else None
        rank = float(measured.ranks[view_name(held.view)].every[place])
        against = None if other is None else float(measured.ranks[other].every[place])
        places.append(ViewPlace(held.view, rank, other, against))
    story = SessionStory(
        session_id=examples.session_id(row),
        clicks=tuple(catalogue.title(item) for item in prefix),
        target=catalogue.title(int(examples.target[row])),
        views=tuple(stories),
    )
    return Sample(story, tuple(places))
