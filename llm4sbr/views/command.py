"""The functions behind ``llm4sbr views infer`` and ``llm4sbr views merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch import LightningDataModule

from llm4sbr.errors import InputError
from llm4sbr.examples import SPLITS, ExampleSource, Split
from llm4sbr.views.absorb import absorb
from llm4sbr.views.budget import sessions_within
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines.estimate import Estimate, estimate, token_counter
from llm4sbr.views.options import Answers, LocalModel, Processes, Server
from llm4sbr.views.pipeline import infer_views
from llm4sbr.views.plan import plan_views
from llm4sbr.views.prompts import shown_titles, templates_named
from llm4sbr.views.store import ViewStore
from llm4sbr.views.summary import ViewSummary

_LOCAL, _SERVER, _PROCESSES = LocalModel(), Server(), Processes()


def infer(
    data: LightningDataModule,
    out: str,
    source: Literal["llm", "titles"] = "llm",
    model: str = "SmolLM2-135M",
    local: LocalModel = _LOCAL,
    server: Server = _SERVER,
    answers: Answers = "free",
    max_new_tokens: int = 24,
    encoder: str = "all-MiniLM-L6-v2",
    r: int = 5,
    limit: int | None = None,
    budget: int | float | None = None,
    bare_run: str | None = None,
    splits: list[Split] | None = None,
    templates: str = "default",
    max_items: int = 20,
    max_title_chars: int = 100,
    batch_size: int | None = None,
    processes: Processes = _PROCESSES,
    seed: int = 0,
    progress: bool = True,
    dry_run: bool = False,
    price_in: float | None = None,
    price_out: float | None = None,
) -> ViewSummary | Estimate:
    """Infer each session's long- and short-term intent and store the localised views.

    Run it again to go on after a stop, or with a larger limit to cover more.

    Args:
        data: The data module whose sessions are asked about.
        out: Folder of the view store.
        source: ``llm`` asks a language model; ``titles`` is the baseline that asks nobody.
        model: Language model: a folder, a .gguf file, an installed weights package, a hub name; or what the
            server calls it.
        local: How the model runs here.
        server: Servers to ask instead.
        answers: ``catalogue`` allows no answer but the catalogue's titles.
        max_new_tokens: A free answer is cut there.
        encoder: Text encoder: a folder, an installed weights package, or a hub name.
        r: Titles per view; 0 keeps the answer's own embedding.
        limit: Ask about at most this many distinct sessions.
        budget: Ask only about the sessions of which a bare model is least certain: so many (5000), or this
            share of each split's distinct sessions (0.1). The rest are for `--views.fallback titles`.
        bare_run: Folder of that bare model's `llm4sbr fit` on the same data, or one of its checkpoints.
        splits: Whose sessions: train, validate, test, predict; all by default.
        templates: default, later, paper, or a YAML or JSON file of view templates.
        max_items: At most the latest this many clicks are shown.
        max_title_chars: Longer titles are cut in prompts.
        batch_size: Prompts that the engine is given at a time; by default what it takes well.
        processes: Several processes or machines.
        seed: Of the order in which sessions are asked about.
        progress: Show a bar.
        dry_run: Tell what is left to ask, its tokens and cost; ask nothing.
        price_in: Of a million prompt tokens, for dry_run.
        price_out: Of a million answer tokens, for dry_run.
    """
    if not hasattr(data, "examples"):
        raise InputError("this data module gives no examples", value=type(data).__name__)
    if (budget is None) != (bare_run is None):
        raise InputError("budget and bare_run go together", value=(budget, bare_run))
    if budget is not None and source == "titles":
        raise InputError("a budget is for asking an LLM; title views cost nothing", value=budget)
    data.prepare_data()
    sessions = cast(ExampleSource, data)
    asked = templates_named(templates)
    trainer = processes.trainer("cpu" if server.base_url else local.device)
    store = ViewStore(out)
    if trainer.is_global_zero and not dry_run:
        store.lock()  # before any work, so that a second writer learns at once
    only = None
    if budget is not None and bare_run is not None:
        shown = progress and trainer.is_global_zero
        only = sessions_within(budget, bare_run, sessions, splits or SPLITS, progress=shown)
    choices = None
    if answers == "catalogue":
        choices = shown_titles(sessions.catalogue.titles, max_title_chars)
    engine = None
    if source == "llm" and server.base_url:
        engine = server.engine(model, max_new_tokens, choices)
    elif source == "llm":
        engine = local.engine(model, max_new_tokens, batch_size, choices)
    text_encoder = SentenceEncoder(encoder, device=local.device)
    what: dict[str, Any] = {
        "templates": asked,
        "r": r,
        "limit": limit,
        "only": only,
        "splits": splits or SPLITS,
        "seed": seed,
        "max_items": max_items,
        "max_title_chars": max_title_chars,
    }
    if dry_run:
        if engine is None:
            raise InputError("views from titles ask nothing, so there is nothing to estimate")
        plan = plan_views(sessions, encoder=text_encoder, engine=engine, **what)
        known = store if store.database.exists() else None
        prompts = plan.pending(known)
        runs = known.runs(plan.spec) if known else []
        taken = sum(run.seconds for run in runs)
        rate = sum(run.prompts for run in runs) / taken if taken else None
        guess = estimate(prompts, max_new_tokens, token_counter(model), price_in, price_out, rate)
        print(guess)
        return guess
    with store:
        summary = infer_views(
            sessions,
            store,
            encoder=text_encoder,
            engine=engine,
            view_source=source,
            progress=progress,
            trainer=trainer,
            **what,
        )
    if trainer.is_global_zero:
        print(summary)
    return summary


def merge(out: str, stores: list[str]) -> None:
    """Take the answers and views of other stores into one; what is there already stays as it is.

    Args:
        out: Folder of the store that takes them in.
        stores: Folders of the others; they are left as they are.
    """
    with ViewStore(out) as store:
        store.lock()
        for other in stores:
            absorb(store, Path(other))
    print(f"{len(stores)} stores taken into {out}; `llm4sbr views infer` localises what is not yet")
