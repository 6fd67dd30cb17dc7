"""Intents of a session as items of the catalogue, for reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.views.localization import localize
from llm4sbr.views.tables import LocalisedViews, UsedViews

if TYPE_CHECKING:
    from llm4sbr.serving.recommender import Recommender

_NEAREST = 5  # items that are shown for a predicted view


def items_of_view(recommender: Recommender, batch: SessionBatch, view: int) -> list[tuple[int, float]]:
    """Items and weights of a known localised view, the heaviest first."""
    used = None if recommender.views is None else recommender.views.table
    table = used.inner if isinstance(used, UsedViews) else used
    row = int(batch.example_index[0])  # 0 for a session without a known view
    if not isinstance(table, LocalisedViews) or not row:
        return []
    pairs = zip(table.ids[row, view].tolist(), table.weights[row, view].tolist(), strict=True)
    return sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[1])


def nearest_items(recommender: Recommender, batch: SessionBatch, view: int) -> list[tuple[int, float]]:
    """Items whose titles are nearest to a predicted view, and their cosines; none without titles."""
    if recommender.views is None or batch.views is None:
        return []
    titles = recommender.views.table.table
    ids, weights = localize(batch.views[:1, view], titles.titles[1:], titles.mask[1:], _NEAREST)
    pairs = zip(ids[0].tolist(), weights[0].tolist(), strict=True)
    return [pair for pair in pairs if pair[0]]
