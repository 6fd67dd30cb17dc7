"""The functions behind ``llm4sbr views infer`` and ``llm4sbr views merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm4sbr.cli.inference import Inference
from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines.estimate import Estimate, estimate, token_counter
from llm4sbr.views.inference.options import Processes
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.inference.plan import plan_views
from llm4sbr.views.inference.summary import ViewSummary
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.merge import merge_store
from llm4sbr.views.store.spec import ViewSource

_PROCESSES = Processes()


def infer(
    source: ViewSource = "llm",
    dry_run: bool = False,
    processes: Processes = _PROCESSES,
    **options: Any,
) -> ViewSummary | Estimate:
    """Infer the long- and short-term intent of each session and store the localised views.

    Run it again to continue after a stop, or with a larger limit to cover more sessions.

    Args:
        source: ``llm`` calls a language model; ``titles`` is the baseline without one.
        dry_run: Whether to only estimate the prompts, tokens, cost and time that are still needed; no prompt
            is sent.
        processes: Options for several processes or machines.
        **options: Arguments of `Inference`.

    Raises:
        InputError: An argument is out of range, or a budget or a dry run is asked of views that cost nothing.
        StoreError: Another process writes to the store, the disk is full, or the store is damaged.
    """
    inference = Inference(**options)
    if source == "titles" and inference.sessions.budget is not None:
        raise InputError(
            "a budget limits calls of an LLM; title views need none", value=inference.sessions.budget
        )
    if dry_run:
        if source == "titles":
            raise InputError("a dry run estimates the calls of an LLM; title views need none", value=source)
        found = _estimate(inference)
        print(found)
        return found
    trainer = processes.trainer(inference.device)
    with inference.store as store:
        if trainer.is_global_zero:
            store.lock()  # before any work, so that a second writer fails at once
        sessions = inference.select(progress=processes.progress and trainer.is_global_zero)
        summary = infer_views(
            inference.source,
            store,
            encoder=inference.encoder(),
            engine=inference.engine(inference.source.catalogue) if source == "llm" else None,
            view_source=source,
            prompts=inference.prompts,
            r=inference.localise.r,
            sessions=sessions,
            progress=processes.progress,
            trainer=trainer,
        )
    if trainer.is_global_zero:
        print(summary)
    return summary


def _estimate(inference: Inference) -> Estimate:
    """Estimate the prompts, tokens, cost and time that are still needed. No prompt is sent."""
    plan = plan_views(
        inference.source,
        encoder=inference.encoder(),
        engine=inference.engine(inference.source.catalogue),
        prompts=inference.prompts,
        r=inference.localise.r,
        sessions=inference.select(),
    )
    known = inference.store if inference.store.database.exists() else None
    prompts = plan.pending(known)
    runs = known.runs(plan.spec) if known else []
    taken = sum(run.seconds for run in runs)
    rate = sum(run.prompts for run in runs) / taken if taken else None
    counter = token_counter(inference.model)
    return estimate(prompts, inference.max_new_tokens, counter, inference.server.prices, rate)


def merge(out: str, stores: list[str]) -> None:
    """Merge the answers and views of other stores into one; existing entries stay unchanged.

    Args:
        out: Folder of the store that receives them.
        stores: Folders of the other stores, which stay unchanged.
    """
    with ViewStore(out) as store:
        store.lock()
        for other in stores:
            merge_store(store, Path(other))
    print(f"{len(stores)} stores merged into {out}; `llm4sbr views infer` localises the new answers")
