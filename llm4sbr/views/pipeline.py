"""Stage 1 from end to end: sessions to prompts to answers to localised views, in batches, resumable."""

from __future__ import annotations

from collections.abc import Sequence

from llm4sbr.errors import InputError
from llm4sbr.examples import SPLITS, ExampleSource, Split
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.progress import Meter, StopRequest
from llm4sbr.views.prompts import DEFAULT_TEMPLATES, PROMPT_VERSION, ViewTemplate
from llm4sbr.views.run import Run, title_embeddings
from llm4sbr.views.sessions import batched, random_order, session_keys
from llm4sbr.views.spec import AnswerSpec, ViewSource, ViewSpec
from llm4sbr.views.store import ViewStore
from llm4sbr.views.summary import ViewSummary, normal_titles
from llm4sbr.views.tables import LONG_TERM, SHORT_TERM

_BATCHES_PER_CHUNK = 4  # sorting so many batches by length wastes little padding, and keeps results coming


def infer_views(
    source: ExampleSource,
    store: ViewStore,
    *,
    encoder: TextEncoder,
    engine: Engine | None = None,
    view_source: ViewSource = "llm",
    templates: Sequence[ViewTemplate] = DEFAULT_TEMPLATES,
    r: int = 5,
    limit: int | None = None,
    splits: Sequence[Split] = SPLITS,
    seed: int = 0,
    max_items: int = 20,
    max_title_chars: int = 100,
    progress: bool = True,
) -> ViewSummary:
    """Infer, localise and store the views of a data module's sessions; what is stored is not done again.

    Every batch of answers is on disk before the next is asked. After a crash or a signal the same call goes
    on where it stopped. The first SIGINT or SIGTERM ends it after the batch.

    Args:
        source: The data module.
        store: Where answers and views go.
        encoder: Embeds answers and titles.
        engine: Answers prompts; not needed for ``titles``.
        view_source: ``titles`` asks nobody and only embeds the titles.
        templates: One per view, in the order of ``SessionBatch.views``.
        r: Titles per view; 0 keeps the answer's own embedding.
        limit: At most this many distinct sessions, those already stored included. The order is random by
            content and seed, so a larger limit extends a smaller one, evenly over the splits.
        splits: Whose sessions.
        seed: Of that order.
        max_items: The latest this many clicks are shown to the LLM.
        max_title_chars: Longer titles are cut in prompts.
        progress: Show a bar.

    Raises:
        InputError: An argument is out of range, or the engine gives the wrong number of answers.
        StoreError: Another process writes to the store, the disk is full, or the store is damaged.
    """
    if r < 0 or (limit is not None and limit < 0) or max_items < 1 or max_title_chars < 1:
        raise InputError(
            "r and limit must not be negative, max_items and max_title_chars at least 1",
            value=(r, limit, max_items, max_title_chars),
        )
    if view_source == "titles":
        return _title_views(source, store, encoder, splits)
    if engine is None:
        raise InputError("views from an LLM need an engine", hint="Pass engine=TransformersEngine()")

    spec = _llm_spec(source, encoder, engine, templates, r, max_items, max_title_chars)
    keys = {split: session_keys(source, split) for split in splits}
    sessions = {key: prefix for part in keys.values() for key, prefix in part}
    chosen = random_order(sessions, seed)[:limit]
    run = Run(store, spec, encoder, engine, source.catalogue, sessions)
    summary = ViewSummary(spec.fingerprint, "llm", sessions=len(sessions), selected=len(chosen))
    summary.reused = sum(map(run.answers_in_store, chosen))

    # What an earlier run asked but was stopped before it could localise.
    views = len(spec.views)
    left = [key for key in sessions if key not in run.localised and run.answers_in_store(key) == views]
    run.localise(left)

    todo = [key for key in chosen if run.answers_in_store(key) < views]
    missing = views * len(chosen) - summary.reused
    with StopRequest() as stop, Meter("asking the LLM", missing, shown=progress and missing > 0) as meter:
        for chunk in batched(todo, max(1, engine.batch_size * _BATCHES_PER_CHUNK // views)):
            run.ask(chunk, meter, stop, summary)
            if stop.requested:
                break
            run.localise(chunk)
        summary.seconds, summary.interrupted = meter.seconds, stop.requested

    selected, titles = set(chosen), normal_titles(source.catalogue, max_title_chars)
    for one in spec.answers:
        summary.count((answer for key, answer in store.answers(one) if key in selected), titles)
    summary.coverage = {
        split: sum(key in run.localised for key, _ in part) / len(part)
        for split, part in keys.items()
        if part
    }
    return summary


def _llm_spec(
    source: ExampleSource,
    encoder: TextEncoder,
    engine: Engine,
    templates: Sequence[ViewTemplate],
    r: int,
    max_items: int,
    max_title_chars: int,
) -> ViewSpec:
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
    return ViewSpec("llm", names, answers, encoder.identity, source.catalogue.fingerprint, r)


def _title_views(
    source: ExampleSource, store: ViewStore, encoder: TextEncoder, splits: Sequence[Split]
) -> ViewSummary:
    """The baseline: the table of title embeddings is all that `TitleViews` needs."""
    catalogue = source.catalogue
    spec = ViewSpec("titles", (LONG_TERM, SHORT_TERM), (), encoder.identity, catalogue.fingerprint, 0)
    title_embeddings(store, spec, encoder, catalogue)
    store.add_spec(spec)
    covered = {split: 1.0 for split in splits if len(source.examples(split))}
    return ViewSummary(spec.fingerprint, "titles", coverage=covered)
