"""The function behind ``llm4sbr views report``: the quality of a store's views before any training."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, ExampleSource, Split
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.outputs import replacing
from llm4sbr.contracts.ranges import NonNegativeInt, PositiveInt, check_arguments
from llm4sbr.report.view_quality.answers import AnswerFacts, count_answers
from llm4sbr.report.view_quality.json import to_json
from llm4sbr.report.view_quality.measure import measure
from llm4sbr.report.view_quality.page import render
from llm4sbr.report.view_quality.records import MeasuredData, MeasuredViews, Provenance, QualityReport
from llm4sbr.report.view_quality.samples import draw_samples
from llm4sbr.report.view_quality.text import to_text
from llm4sbr.views.inference.summary import normal_titles
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.spec import ViewSpec

_VERSIONS = ("llm4sbr", "torch", "transformers", "sentence-transformers")


def views_report(
    data: LightningDataModule,
    store: str,
    spec: str | None = None,
    split: Split = "validate",
    html: str | None = None,
    json: str | None = None,
    samples: NonNegativeInt = 8,
    seed: NonNegativeInt = 0,
    draws: PositiveInt = 2000,
    device: str = "auto",
) -> QualityReport:
    """Measure how well a store's views find the true next item, and print it. Nothing is trained or inferred.

    Every item of the catalogue is ranked by the cosine of its title with the view. The report compares the
    views with views made of titles alone, popularity and chance, on the same examples. It reads the named
    split, and train and validate for their coverage and for popularity; no other split.

    Args:
        data: Data module.
        store: Folder of the view store.
        spec: Views to measure, if the store has several: a fingerprint or its beginning, or a source.
        split: Split of the examples.
        html: File for the report as a page.
        json: File for the figures as JSON.
        samples: Number of examples shown in full.
        seed: Seed of the bootstrap and of the samples.
        draws: Number of bootstrap samples of each interval.
        device: Device of the measurement; ``auto`` takes a GPU if there is one.

    Raises:
        InputError: The split has no example with a known next item, no views fit, or a file can't be written.
        StoreError: The store is missing or damaged.
    """
    check_arguments(views_report, locals())
    if not hasattr(data, "examples"):
        raise InputError("this data module gives no examples", value=type(data).__name__)
    with replacing(json, html):
        data.prepare_data()
        with ViewStore(store) as opened:
            report = measure_store(
                cast(ExampleSource, data),
                opened,
                spec,
                split,
                samples=samples,
                seed=seed,
                draws=draws,
                device=device,
            )
        words = ["--data", type(data).__name__, "--store", store, "--split", split, "--seed", str(seed)]
        # From a shell: keep the command as typed.
        called = Path(sys.argv[0]).name in ("llm4sbr", "__main__.py")
        made = replace(
            report.made,
            command=shlex.join(["llm4sbr", *(sys.argv[1:] if called else ["views", "report", *words])]),
            date=date.today().isoformat(),
            machine=f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
            versions={name: version(name) for name in _VERSIONS},
        )
        report = replace(report, made=made)
        print(to_text(report))
        if json is not None:
            write_text(json, to_json(report))
        if html is not None:
            write_text(html, render(report))
    return report


def measure_store(
    source: ExampleSource,
    store: ViewStore,
    spec: str | None = None,
    split: Split = "validate",
    *,
    samples: NonNegativeInt = 8,
    seed: NonNegativeInt = 0,
    draws: PositiveInt = 2000,
    device: str = "auto",
) -> QualityReport:
    """Measure one set of views of a store on one split of a data module, as `views_report` does."""
    began = time.perf_counter()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    only = OneSplit(source, split)
    examples = only.examples(split)
    known = examples.target > 0
    if not known.any():
        raise InputError("this split has no example whose next item is known", value=split)
    loaded = load_view_table(store, only, spec)
    chosen, coverage = loaded.spec, dict(loaded.coverage)
    others: tuple[Split, ...] = ("train", "validate")
    for other in others:
        if other != split:
            coverage |= load_view_table(store, OneSplit(source, other), chosen.fingerprint).coverage
    clicked = np.bincount(source.examples("train").target, minlength=source.catalogue.num_items + 1)[1:]
    measured = measure(loaded, examples, clicked, draws, seed, device)
    coverage[split] = len(measured.rows) / int(
        known.sum()
    )  # a session without titles has no view under any spec
    answers = _answer_facts(store, chosen, only, split)
    views = tuple(replace(view, answers=answers.get(view.view)) for view in measured.views)
    return QualityReport(
        measured=MeasuredViews(
            store=str(store.path),
            spec=chosen.describe(),
            source=chosen.source,
            encoder=chosen.encoder.name,
            r=chosen.r,
            model=chosen.answers[0].engine.model.name if chosen.answers else "",
        ),
        data=MeasuredData(
            name=type(source).__name__,
            split=split,
            num_items=source.catalogue.num_items,
            examples=int(known.sum()),
            covered=len(measured.rows),
            sessions=len(np.unique(examples.session[measured.rows])),
            targets=len(np.unique(examples.target[measured.rows])),
            coverage={name: coverage[name] for name in SPLITS if name in coverage},
        ),
        views=views,
        references=measured.references,
        samples=draw_samples(source.catalogue, store, chosen, examples, measured, samples, seed),
        runs=tuple(store.runs(chosen)),
        draws=draws,
        seed=seed,
        made=Provenance(device=device, seconds=time.perf_counter() - began),
    )


class OneSplit:
    """One split of a data module, with examples numbered from 0; the other splits appear empty.

    Args:
        source: Data module.
        split: Split to expose.
    """

    def __init__(self, source: ExampleSource, split: Split) -> None:
        self.catalogue, self._source, self._split = source.catalogue, source, split

    def examples(self, split: Split) -> Examples:
        """Return the examples of the split; none for any other split."""
        if split == self._split:
            return replace(self._source.examples(split), first_index=0)
        none = np.zeros(0, np.int64)
        return Examples(none, none, none, none, none, ())


def _answer_facts(
    store: ViewStore, spec: ViewSpec, source: ExampleSource, split: Split
) -> dict[str, AnswerFacts]:
    """Count the answers of the split's distinct sessions, view by view."""
    if not spec.answers:
        return {}
    key = source.catalogue.session_key
    sessions = {key(prefix): prefix for prefix in source.examples(split).prefixes()}
    titles = normal_titles(source.catalogue, spec.answers[0].max_title_chars)
    return {
        one.view: count_answers(
            ((sessions[key], answer) for key, answer in store.answers(one) if key in sessions),
            one,
            source.catalogue,
            titles,
        )
        for one in spec.answers
    }
