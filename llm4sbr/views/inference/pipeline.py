"""Stage 1 from end to end: sessions, prompts, answers and localised views, in batches, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import ExampleSource
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.lightning import Chunks, ViewInference, inference_trainer
from llm4sbr.views.inference.plan import ALL_SESSIONS, Selection, ViewPlan, plan_views
from llm4sbr.views.inference.progress import Meter, StopRequest
from llm4sbr.views.inference.summary import AnswerCounts, Usage, ViewSummary, normal_titles
from llm4sbr.views.inference.view_writer import ViewWriter
from llm4sbr.views.inference.worker import Run, title_embeddings
from llm4sbr.views.loading import titled_share
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.quiet import quiet_lightning
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.merge import merge_shards, shard_of
from llm4sbr.views.store.reading import StoreReader
from llm4sbr.views.store.spec import ViewSource, ViewSpec
from llm4sbr.views.tables import LONG_TERM, SHORT_TERM


def infer_views(
    source: ExampleSource,
    store: ViewStore,
    *,
    encoder: TextEncoder,
    engine: Engine | None = None,
    view_source: ViewSource = "llm",
    prompts: PromptOptions = DEFAULT_PROMPTS,
    r: int = 5,
    sessions: Selection = ALL_SESSIONS,
    progress: bool = True,
    trainer: Trainer | None = None,
) -> ViewSummary:
    """Infer, localise and store the views of a data module's sessions, except those already stored.

    Every batch of answers is on disk before the next one is requested. After a crash or a signal the same
    call continues where it stopped. The first SIGINT or SIGTERM ends it after the batch.

    Args:
        source: Data module with the sessions.
        store: Store of answers and views.
        encoder: Encoder of answers and titles.
        engine: Engine that answers prompts; not needed for ``titles``.
        view_source: Source of the views; ``titles`` needs no LLM and only embeds the titles.
        prompts: View templates, and how prompts show a session.
        r: Number of titles per view; 0 keeps the embedding of the answer itself.
        sessions: Sessions to query the LLM about; all by default.
        progress: Whether to show a progress bar.
        trainer: Trainer whose `predict` runs the queries; one process on this machine by default. With
            several, each process calls this function and writes its own shard, and the first process merges
            the shards at the end.

    Returns:
        Summary of the run: over all processes on the first one, without token counts on the others.

    Raises:
        InputError: An argument is out of range, or the engine returns the wrong number of answers.
        StoreError: Another process writes to the store, the disk is full, or the store is damaged.
    """
    if view_source == "titles":
        return _title_views(source, store, encoder, sessions)
    if engine is None:
        raise InputError("views from an LLM need an engine", hint="Pass engine=TransformersEngine()")
    plan = plan_views(source, encoder=encoder, engine=engine, prompts=prompts, r=r, sessions=sessions)
    trainer = trainer or inference_trainer()
    if trainer.global_rank:
        return _assist(plan, store, encoder, engine, trainer)
    store.lock()
    merge_shards(store)  # shards of a killed run
    run = Run(store, store, plan, encoder, engine)
    summary = ViewSummary(
        plan.spec.fingerprint, "llm", sessions=len(plan.sessions), selected=len(plan.chosen)
    )
    summary.reused = sum(map(run.answers_in_store, plan.chosen))
    run.localise(list(plan.sessions))  # answers that a killed run could not localise
    began = time.time()
    missing = len(plan.spec.views) * len(plan.chosen) - summary.reused if progress else 0
    summary.interrupted = _predict(lambda: run, plan, engine, trainer, missing)
    if trainer.world_size > 1:
        trainer.strategy.barrier("shards")  # also in `_assist`: every shard is now closed
        merge_shards(store)
    _conclude(summary, store, plan, began)
    summary.coverage = plan.coverage(_known(store, plan.spec))
    return summary


def _assist(
    plan: ViewPlan, store: ViewStore, encoder: TextEncoder, engine: Engine, trainer: Trainer
) -> ViewSummary:
    """Run any process but the first: read the store, write a shard."""
    with ViewStore(shard_of(store.path, trainer.global_rank)) as shard:
        # `setup` creates the Run: by then the first process has created the store and merged old shards.
        _predict(lambda: Run(StoreReader(store.path), shard, plan, encoder, engine), plan, engine, trainer)
    trainer.strategy.barrier("shards")  # the shard is closed, so the first process can merge it
    # Not `interrupted`: Lightning kills the first process if another one ends with a non-zero status.
    return ViewSummary(plan.spec.fingerprint, "llm", len(plan.sessions), len(plan.chosen))


def _predict(
    prepare: Callable[[], Run], plan: ViewPlan, engine: Engine, trainer: Trainer, shown: int = 0
) -> bool:
    """Query this process's share of the sessions, with a progress bar of ``shown`` missing answers.

    Returns:
        Whether a signal ended the run early.
    """
    world = trainer.world_size
    with StopRequest() as stop, Meter("querying the LLM", shown // world, shown=shown > 0) as meter:
        size = max(1, engine.batch_size // len(plan.spec.views))
        chunks = Chunks(plan.chosen, size, stop, trainer.global_rank, world)
        writer = ViewWriter(meter, stop)
        trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        try:
            with quiet_lightning():
                trainer.predict(ViewInference(prepare), chunks.loader(), return_predictions=False)
        finally:
            trainer.callbacks.remove(writer)  # type: ignore[attr-defined]
    return stop.requested


def _conclude(summary: ViewSummary, store: ViewStore, plan: ViewPlan, began: float) -> None:
    """Complete the summary from the store, over all processes."""
    summary.usage = Usage.of(record for record in store.runs(plan.spec) if record.started >= began)
    titles, selected = normal_titles(plan.catalogue, plan.spec.answers[0].max_title_chars), set(plan.chosen)
    for one in plan.spec.answers:
        said = (answer for key, answer in store.answers(one) if key in selected)
        summary.answers += AnswerCounts.of(said, titles)
        summary.failures.update(reason for key, reason in store.failures(one) if key in selected)


def _known(store: ViewStore, spec: ViewSpec) -> set[bytes]:
    """Keys of the sessions with all views; without titles in the catalogue an answer has no view."""
    keys = list(store.localised_keys(spec))
    rows = store.lookup_localised(spec, keys, dim=0 if spec.r else store.titles(spec)[0].size(1))
    return {keys[row] for row in np.flatnonzero(np.all(rows.mask, axis=1))}


def _title_views(
    source: ExampleSource, store: ViewStore, encoder: TextEncoder, sessions: Selection
) -> ViewSummary:
    """Store the baseline's views: `TitleViews` needs only the table of title embeddings."""
    catalogue = source.catalogue
    spec = ViewSpec("titles", (LONG_TERM, SHORT_TERM), (), encoder.identity, catalogue.fingerprint, 0)
    store.lock()
    _, titled = title_embeddings(store, spec, encoder, catalogue)
    store.add_spec(spec)
    known = np.concatenate(([False], titled.cpu().numpy()))
    parts = {split: source.examples(split) for split in sessions.splits}
    covered = {split: titled_share(part, known, spec.views) for split, part in parts.items() if len(part)}
    return ViewSummary(spec.fingerprint, "titles", coverage=covered)
