"""Load the view table of a data module from a store, joined by content."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, ExampleSource, Split
from llm4sbr.views.distinctness import warn_indistinct
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.spec import ViewSpec
from llm4sbr.views.tables import (
    SHORT_TERM,
    DenseViews,
    LocalisedViews,
    ScaledTitleViews,
    StoredViews,
    TitleTable,
    TitleViews,
    ViewTable,
)


class LoadedViews(NamedTuple):
    """A view table with its specification and coverage."""

    table: ViewTable
    spec: ViewSpec
    coverage: dict[Split, float]  # share of a split's examples with all views known, without the fallback


def load_view_table(
    store: ViewStore,
    source: ExampleSource,
    spec: str | None = None,
    fallback: Literal["mask", "titles"] = "mask",
    only: Collection[bytes] | None = None,
    r: int | None = None,
) -> LoadedViews:
    """Build the view table of all examples of a data module, joined by content.

    Args:
        store: Store that stage 1 wrote.
        source: Data module with the examples.
        spec: Views to load if the store has several: a fingerprint or its beginning, or a source (``llm``,
            ``titles``).
        fallback: Replacement of unknown views: none (``mask``), or the title views (``titles``), scaled to
            the mean length of the known views of the train split (`ScaledTitleViews`).
        only: Keys of the only sessions whose views are used; all others count as unknown. It does not affect
            ``titles`` views, which need no LLM.
        r: Number of nearest titles to use of each localised view; by default all that the store has.

    Raises:
        InputError: No spec or more than one fits the catalogue and ``spec``, or its views have fewer than
            ``r`` titles.
        StoreError: The store is missing or damaged.
    """
    chosen = _choose(store, source.catalogue.fingerprint, spec)
    if r is not None and (chosen.source == "titles" or not 1 <= r <= chosen.r):
        raise InputError(
            f"r = {r} does not fit the views of the store: {chosen.describe()}",
            path=store.path,
            hint=f"Choose r between 1 and {chosen.r}, or infer views with a larger r"
            if chosen.source == "llm" and chosen.r
            else "Leave r out",
        )
    titles, known = store.titles(chosen)
    warn_indistinct(source.catalogue.titles, titles, chosen.encoder.name)
    table = TitleTable(titles, known)
    parts = {split: source.examples(split) for split in SPLITS}
    if chosen.source == "titles":
        title_views = TitleViews(table, chosen.views)
        shares = {
            split: titled_share(part, table.mask.numpy(), chosen.views)
            for split, part in parts.items()
            if len(part)
        }
        return LoadedViews(title_views, chosen, shares)
    total = max((part.first_index + len(part) for part in parts.values()), default=0)
    keys = [b""] * total  # no session has an empty key
    session_key = source.catalogue.session_key
    for split, part in parts.items():
        here = slice(part.first_index, part.first_index + len(part))
        if any(keys[here]):
            raise InputError(f"the examples of split {split!r} share an example_index with another split")
        keys[here] = [session_key(prefix) for prefix in part.each_prefix()]
    if only is not None:
        used = frozenset(only)
        keys = [key if key in used else b"" for key in keys]
    rows = store.lookup_localised(chosen, keys, dim=table.titles.size(1))
    mask = torch.from_numpy(rows.mask)
    coverage = {
        split: float(mask[part.first_index : part.first_index + len(part)].all(1).float().mean())
        for split, part in parts.items()
        if len(part)
    }
    views: StoredViews
    if rows.vectors is not None:
        views = DenseViews(table, chosen.views, torch.from_numpy(rows.vectors), mask)
    else:
        # Titles are in descending order of similarity, so the first r equal a localisation with that r.
        ids, weights = torch.from_numpy(rows.ids[..., :r]), torch.from_numpy(rows.weights[..., :r])
        views = LocalisedViews(table, chosen.views, ids, weights, mask)
    if fallback == "titles":
        train = parts["train"]  # the lengths are a statistic: use no other split
        norms = views.mean_norms(torch.arange(train.first_index, train.first_index + len(train)))
        views.fallback = ScaledTitleViews(table, chosen.views, norms)
    return LoadedViews(views, chosen, coverage)


def titled_share(examples: Examples, titled: npt.NDArray[np.bool_], views: Sequence[str]) -> float:
    """Share of the examples with all title views: a title of the last click, or of any click.

    Shapes:
        - titled: ``(V + 1,)``, True if the item has a title; item 0 has none
    """
    before = np.concatenate(([0], np.cumsum(titled[examples.clicks])))  # (T + 1,) titled clicks so far
    last = titled[examples.clicks[examples.end - 1]]  # (E,)
    every = before[examples.end] > before[examples.start]  # (E,)
    if SHORT_TERM in views:
        every = every & last
    return float(every.mean())


def _choose(store: ViewStore, catalogue: str, wanted: str | None) -> ViewSpec:
    every = store.view_specs()
    here = [spec for spec in every if spec.catalogue == catalogue]
    if every and not here:
        others = ", ".join(sorted({spec.catalogue[:12] for spec in every}))
        raise InputError(
            f"the store's views belong to another catalogue ({others})",
            path=store.path,
            value=catalogue[:12],
            hint="Its items or titles differ from this data's: run `llm4sbr views infer` on this data",
        )
    fitting = [s for s in here if not wanted or wanted == s.source or s.fingerprint.startswith(wanted)]
    if len(fitting) != 1:
        listed = "; ".join(spec.describe() for spec in (fitting or here)) or "none"
        raise InputError(
            f"{'no' if not fitting else 'more than one'} set of views in the store fits. It has: {listed}",
            path=store.path,
            value=wanted,
            hint="Select one by the beginning of its fingerprint"
            if here
            else "Run `llm4sbr views infer` first",
        )
    return fitting[0]
