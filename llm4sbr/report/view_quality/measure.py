"""Measurement of views: rank the catalogue for every covered example of a split, and average."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.report.sessions import batch_of
from llm4sbr.report.view_quality.records import MAIN, Estimate, Kind, RankingQuality, ViewQuality
from llm4sbr.report.view_quality.statistics import (
    METRICS,
    FloatArray,
    Ranks,
    chance,
    gains,
    intervals,
    rank_targets,
    title_scores,
)
from llm4sbr.views.loading import LoadedViews
from llm4sbr.views.tables import SHORT_TERM, LocalisedViews, TitleViews

POPULAR, RANDOM = "the most clicked items of training", "chance"
KINDS: dict[str, Kind] = {"llm": "view", "titles": "titles"}
PLACES = ("every", "unclicked")  # the two rankings of `Ranks`
Key = tuple[str, str, str]  # name, one of PLACES, metric
_SCORES = 1 << 24  # scores in memory at a time: 64 MB


class Collected(NamedTuple):
    """The ranks of the ``n`` covered examples in one ranking; see `statistics.Ranks`."""

    every: FloatArray  # (n,)
    unclicked: FloatArray  # (n,)
    nearest: IntArray  # (n,) 0 where the ranking has no first item


@dataclass(frozen=True)
class Measured:
    """Result of a measurement.

    Args:
        rows: Rows of the covered examples.
        ranks: Ranks by name of the ranking.
        views: Quality of the views, without facts about their answers.
        references: Quality of popularity, if training has clicks, and of chance.
    """

    rows: IntArray
    ranks: Mapping[str, Collected]
    views: tuple[ViewQuality, ...]
    references: tuple[RankingQuality, ...]


def view_name(view: str) -> str:
    """Return the name of a view's ranking."""
    return f"{view} view"


def title_name(view: str) -> str:
    """Return the name of a view's baseline, the ranking by titles; see `TitleViews`."""
    return "the last title" if view == SHORT_TERM else "the mean of the session's titles"


def _minus(view: str) -> str:
    return f"{view_name(view)} minus its baseline"


def measure(
    loaded: LoadedViews,
    examples: Examples,
    clicked: IntArray,
    draws: int = 2000,
    seed: int = 0,
    device: str = "cpu",
) -> Measured:
    """Measure views on the examples of a split that have all of them and a known next item.

    Args:
        loaded: Views by row of ``examples``.
        examples: Examples of the split.
        clicked: Number of times that each item is a target in training.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.
        device: Device of the ranking.

    Shapes:
        - clicked: ``(V,)``
    """
    rows, ranks = _rank(loaded, examples, clicked, torch.device(device))
    names, kind = loaded.table.views, KINDS[loaded.spec.source]
    if not len(rows):
        none = [ViewQuality(view, RankingQuality(view_name(view), kind)) for view in names]
        return Measured(rows, {}, tuple(none), ())
    rest = POPULAR if POPULAR in ranks else ""
    beaten_by = {view: title_name(view) if kind == "view" else rest for view in names}
    earned = {
        (name, place, metric): gains(getattr(found, place), metric)
        for name, found in ranks.items()
        for place in PLACES
        for metric in METRICS
    }
    for view, other in beaten_by.items():
        for place, metric in product(PLACES, METRICS) if other else ():
            own = earned[view_name(view), place, metric]
            earned[_minus(view), place, metric] = own - earned[other, place, metric]
    estimates = _estimates(earned, examples.session[rows], draws, seed)
    clicks = [set(examples.prefix(row)) for row in rows.tolist()]

    def quality(name: str, kind: Kind) -> RankingQuality:
        nearest = ranks[name].nearest.tolist()
        echoes = [item in own for item, own in zip(nearest, clicks, strict=True)]
        every, unclicked = (_of(estimates, name, place) for place in PLACES)
        return RankingQuality(name, kind, every, unclicked, len({*nearest} - {0}), float(np.mean(echoes)))

    references = [_chance(len(clicked), examples.target[rows], clicks)]
    if rest:
        references.insert(0, quality(POPULAR, "popular"))
    views = []
    for column, (view, other) in enumerate(beaten_by.items()):
        baseline = quality(other, "popular" if other == POPULAR else "titles") if other else None
        every, unclicked = (_of(estimates, _minus(view), place) for place in PLACES)
        new = float(np.mean(earned[_minus(view), "every", MAIN] > 0)) if other else None
        named = _named(loaded, rows, column)
        own_quality = quality(view_name(view), kind)
        views.append(ViewQuality(view, own_quality, baseline, every, unclicked, new, named))
    return Measured(rows, ranks, tuple(views), tuple(references))


@torch.inference_mode()
def _rank(
    loaded: LoadedViews, examples: Examples, clicked: IntArray, device: torch.device
) -> tuple[IntArray, dict[str, Collected]]:
    """Rank the targets of all covered examples by every view, its baseline and popularity, chunk by chunk."""
    table = loaded.table.to(device)
    titles_alone = TitleViews(table.table, table.views)
    titles = normalize(table.table.titles[1:].float(), dim=-1)  # (V, d_t)
    mask = table.table.mask[1:]
    popular = torch.from_numpy(clicked).float().to(device)
    known = np.flatnonzero(examples.target > 0)
    chunk = max(1, _SCORES // len(clicked))
    kept: list[IntArray] = [known[:0]]
    parts: dict[str, list[Ranks]] = {}
    for begin in range(0, len(known), chunk):
        here = known[begin : begin + chunk]
        batch = _map(batch_of(examples, here.tolist()), lambda column: column.to(device))
        views, view_mask = table(batch)
        covered = view_mask.all(1)
        if not covered.any():
            continue
        kept.append(here[covered.cpu().numpy()])
        batch = _map(batch, operator.itemgetter(covered))
        queries = {view_name(view): views[covered, place] for place, view in enumerate(table.views)}
        if loaded.spec.source == "llm":
            alone, _ = titles_alone(batch)
            queries |= {title_name(view): alone[:, place] for place, view in enumerate(table.views)}
        for name, query in queries.items():
            found = rank_targets(title_scores(query, titles, mask), batch.item_ids, batch.target)
            # A zero vector has no nearest item, although argmax returns the first column.
            found = found._replace(nearest=found.nearest * query.any(1))
            parts.setdefault(name, []).append(found)
        if clicked.any():
            scores = popular.expand(len(batch.target), -1)
            parts.setdefault(POPULAR, []).append(rank_targets(scores, batch.item_ids, batch.target))
    joined = {
        name: Collected(*(torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)))
        for name, found in parts.items()
    }
    return np.concatenate(kept), joined


def _map(batch: SessionBatch, change: Callable[[Tensor], Tensor]) -> SessionBatch:
    """Apply a function to every column that a view table reads."""
    items, lengths, target, index = map(change, batch[:4])
    return SessionBatch(items, lengths, target, index)


def _estimates(
    earned: Mapping[Key, FloatArray], session: IntArray, draws: int, seed: int
) -> dict[Key, Estimate]:
    """Compute means with intervals, all from the same draws of sessions."""
    values = np.stack(list(earned.values()), axis=1)  # (n, M)
    means, edges = values.mean(0).tolist(), intervals(values, session, draws, seed).T.tolist()
    return {
        key: Estimate(mean, *(None if np.isnan(edge) else edge for edge in pair))
        for key, mean, pair in zip(earned, means, edges, strict=True)
    }


def _of(estimates: Mapping[Key, Estimate], name: str, place: str) -> dict[str, Estimate]:
    return {
        metric: estimates[name, place, metric] for metric in METRICS if (name, place, metric) in estimates
    }


def _chance(num_items: int, target: IntArray, clicks: list[set[int]]) -> RankingQuality:
    """Return the expected metrics of a random order."""
    every = np.full(len(target), float(num_items))
    left = [
        0.0 if goal in own else num_items - len(own)
        for goal, own in zip(target.tolist(), clicks, strict=True)
    ]
    means = [
        {metric: Estimate(float(chance(candidates, metric).mean())) for metric in METRICS}
        for candidates in (every, np.array(left))
    ]
    return RankingQuality(RANDOM, "random", means[0], means[1])


def _named(loaded: LoadedViews, rows: IntArray, place: int) -> int | None:
    """Count the distinct items whose titles a view was localised to."""
    if not isinstance(loaded.table, LocalisedViews):
        return None
    ids = loaded.table.ids[torch.from_numpy(rows).to(loaded.table.ids.device), place]  # (n, r)
    return len(np.unique(ids[ids > 0].cpu().numpy()))
