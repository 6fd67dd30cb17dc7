"""Reasons: what each click, each view and each head does to the score of one item, by leaving it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.heads import ItemTitles
from llm4sbr.nn.scoring import Scoring, WrappedScoring
from llm4sbr.serving.intents import items_of_view, nearest_items
from llm4sbr.serving.known_views import ViewState

if TYPE_CHECKING:
    from llm4sbr.serving.recommender import Recommender

_AT_ONCE = 32  # shorter sessions in a batch: bounds the memory of the scores, (B, V), and the time of a step


@dataclass(frozen=True, slots=True)
class Effect:
    """What one part of the input or of the model does to an item.

    Attributes:
        effect: Log-probability of the item with the part, minus the one without it. Above 0, the part speaks
            for the item. Exact: the model scores the session once more without the part.
        rank_without: Rank of the item without the part, 1 for the best.
    """

    effect: float
    rank_without: int


@dataclass(frozen=True, slots=True)
class ClickEffect(Effect):
    """Effect of a click: the session without it, with the same views.

    Attributes:
        item_id: The clicked item.
        title: Its title.
        place: Its place in the session, from 0, as it was given.
    """

    item_id: str
    title: str
    place: int


@dataclass(frozen=True, slots=True)
class ViewEffect(Effect):
    """Effect of a view: the same clicks without it.

    Attributes:
        name: Name of the view, such as ``long_term``.
        intents: Items that the view is made of, with their weights: those nearest to what the language model
            said. For a predicted view, the items whose titles are nearest to it, with their cosines. Empty
            for another view that is no mixture of items.
        predicted: Whether the model has predicted the view.
    """

    name: str
    intents: tuple[tuple[str, str, float], ...]  # (item_id, title, weight), the heaviest first
    predicted: bool = False


@dataclass(frozen=True, slots=True)
class HeadEffect(Effect):
    """Effect of a score head: the same scores without it.

    Attributes:
        name: Class of the head.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item has its place.

    Attributes:
        item_id: The item.
        title: Its title.
        rank: Its rank among all items, 1 for the best.
        probability: Softmax of the scores at the item.
        clicks: Effects of the clicks, in their order. Empty for a session of one click, without which
            nothing is left to score.
        views: Effects of the known and the predicted views.
        heads: Effects of the heads. `ItemTitles` has none: it is part of the items' vectors.
        view: Where the session's views come from, as in `Recommendation`.
        ignored: Ids of the session that the catalogue lacks.
    """

    item_id: str
    title: str
    rank: int
    probability: float
    clicks: tuple[ClickEffect, ...]
    views: tuple[ViewEffect, ...]
    heads: tuple[HeadEffect, ...]
    view: ViewState
    ignored: tuple[str, ...]


def _nothing() -> None:
    pass


@torch.inference_mode()
def explain(
    recommender: Recommender, session: Sequence[str], item: str, between: Callable[[], None] = _nothing
) -> Explanation:
    """Explain the place of an item; see `Recommender.explain`."""
    catalogue = recommender.catalogue
    if item not in catalogue.index:
        raise InputError("the item is not in the catalogue", value=item)
    clicks, places, ignored = recommender.read_session(session)
    if not clicks:
        raise InputError("no item of the session is in the catalogue", value=list(session))
    column, model = catalogue.index[item] - 1, recommender.model
    batch, states = recommender.batch([clicks])
    batch, predicted = _with_predictions(model, batch)
    whole = _Place(_scores(model, batch), column)

    def named(place: int) -> tuple[str, str]:
        return catalogue.item_ids[place - 1], catalogue.title(place)

    click_effects: list[ClickEffect] = []
    if len(clicks) > 1:
        for begin in range(0, len(clicks), _AT_ONCE):
            between()
            part = range(begin, min(begin + _AT_ONCE, len(clicks)))
            others = [clicks[:one] + clicks[one + 1 :] for one in part]
            less = _with_views_of(recommender.batch(others, views=False)[0], batch)
            without = _Place(_scores(model, less), column)
            click_effects += [
                ClickEffect(*whole.minus(without, row), *named(clicks[one]), places[one])
                for row, one in enumerate(part)
            ]
    return Explanation(
        item,
        catalogue.title(column + 1),
        whole.rank[0],
        whole.log_probability[0].exp().item(),
        tuple(click_effects),
        tuple(_view_effects(recommender, batch, predicted, whole, between)),
        tuple(_head_effects(model, batch, whole, between)),
        states[0],
        ignored,
    )


def refuse_nan(scores: Tensor) -> None:
    """Refuse the scores of a broken model.

    Raises:
        InputError: If a score is NaN; -inf masks an item.
    """
    if scores.isnan().any():
        raise InputError("the scores are not finite", hint="The model is broken: export another checkpoint")


class _Place:
    """Log-probability and rank of an item in each row of scores ``(B, V)``."""

    def __init__(self, scores: Tensor, column: int) -> None:
        refuse_nan(scores)
        own = scores[:, column : column + 1]
        self.column = column
        self.log_probability = scores.double().log_softmax(1)[:, column]  # (B,)
        self.rank: list[int] = ((scores > own).sum(1) + 1).tolist()

    def minus(self, without: _Place, row: int = 0) -> tuple[float, int]:
        """Effect of what `without` lacks, and the rank without it."""
        effect = self.log_probability[0] - without.log_probability[row]
        return effect.item(), without.rank[row]


def _with_predictions(model: Scoring, batch: SessionBatch) -> tuple[SessionBatch, list[bool]]:
    """The batch of one session with its predicted views, and for each view whether it is predicted."""
    made = model.enhance(batch) if isinstance(model, WrappedScoring) else None
    if made is None or made.prediction is None:
        return batch, []
    return made.seen, made.prediction.replaced[0].tolist()


def _scores(model: Scoring, batch: SessionBatch) -> Tensor:
    """Scores of sessions whose unknown views stay unknown: a view that is left out is not predicted."""
    if isinstance(model, WrappedScoring):
        return model.score_enhanced(model.enhance(batch, predict=False))
    scores: Tensor = model(batch)
    return scores


def _with_views_of(less: SessionBatch, batch: SessionBatch) -> SessionBatch:
    """The views of one session, for each row of a batch: a click is left out alone."""
    if batch.views is None or batch.view_mask is None:
        return less
    count = len(less.lengths)
    return less._replace(views=batch.views.expand(count, -1, -1), view_mask=batch.view_mask.expand(count, -1))


def _view_effects(
    recommender: Recommender,
    batch: SessionBatch,
    predicted: list[bool],
    whole: _Place,
    between: Callable[[], None],
) -> list[ViewEffect]:
    model, catalogue = recommender.model, recommender.catalogue
    if batch.views is None or batch.view_mask is None or not isinstance(model, WrappedScoring):
        return []
    names = model.interest_of_view if recommender.views is None else recommender.views.spec.names
    found = []
    for view in batch.view_mask[0].nonzero().flatten().tolist():
        between()
        mask = batch.view_mask.clone()
        mask[0, view] = False
        without = _Place(_scores(model, batch._replace(view_mask=mask)), whole.column)
        made = bool(predicted) and predicted[view]
        intents = (nearest_items if made else items_of_view)(recommender, batch, view)
        shown = tuple((catalogue.item_ids[one - 1], catalogue.title(one), weight) for one, weight in intents)
        found.append(ViewEffect(*whole.minus(without), names[view], shown, made))
    return found


def _head_effects(
    model: Scoring, batch: SessionBatch, whole: _Place, between: Callable[[], None]
) -> list[HeadEffect]:
    if isinstance(model, WrappedScoring):
        enhanced = model.enhance(batch, predict=False)
        session, interests, seen = enhanced.session, enhanced.interests, enhanced.seen
    else:
        session, interests, seen = model.read(batch)
    before, heads, found = model.score(session, interests), model.score_heads(), []
    for left_out in heads:
        if isinstance(left_out, ItemTitles):
            continue
        between()
        scores = before
        for head in heads:
            if head is not left_out:
                scores = head(scores, session, seen)
        found.append(HeadEffect(*whole.minus(_Place(scores, whole.column)), type(left_out).__name__))
    return found
