"""Recommendation: what a session gets, and why it may get nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from llm4sbr.nn.retrieval.ranker import Scores
from llm4sbr.serving.known_views import ViewState

# Called with the clicks of sessions, their scores ``(B, V)`` before any filter, and the state of their views.
# With a retrieval the scores of a row are computed when they are read.
RowScores = Tensor | Scores
Observer = Callable[[Sequence[list[int]], RowScores, Sequence[ViewState]], None]

NO_CLICKS = "the session has no click"
NOTHING_KNOWN = "no item of the session is in the catalogue"
NOTHING_LEFT = "the filters leave no item"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Recommended items of one session, best first.

    Attributes:
        item_ids: The shop's ids of the items.
        titles: Their titles.
        scores: Their scores; comparable within one session only.
        ignored: Ids of the session that the catalogue lacks, in their order.
        view: Where the session's views come from: ``known`` (the run's own), ``titles`` (title views in place
            of unknown ones), ``predicted`` (by the model, in place of unknown ones) or ``absent`` (none; also
            for every session of a bare model).
        reason: Why there are no items; None if there are some.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    scores: tuple[float, ...]
    ignored: tuple[str, ...] = ()
    view: ViewState = "absent"
    reason: str | None = None
