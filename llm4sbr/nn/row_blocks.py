"""Scores of a batch in blocks of sessions: memory never holds a score of every item for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.errors import InputError

if TYPE_CHECKING:
    from llm4sbr.nn.scoring import Scoring


class RowBlocks:
    """Scores some sessions at a time of a batch that a model has read.

    The gradient of the items, as large as their table, is added up in one place over the blocks.

    Args:
        model: Model that scores, with its heads.
        session: Session vectors of the batch.
        interests: Interests behind them.
        batch: Sessions as the heads see them.

    Shapes:
        - session: ``(B, d)``

    Raises:
        InputError: If the backbone or the scorer computes scores that are no product (`can_divide`).
    """

    def __init__(self, model: Scoring, session: Tensor, interests: Interests, batch: SessionBatch) -> None:
        if not can_divide(model):
            own = model.backbone if model.backbone.has_own_scores() else model.scorer
            raise InputError(
                f"{type(own).__name__} has scores of its own, which may need the whole batch",
                hint="Use FullSoftmax or SampledSoftmax",
            )
        self.model, self.session, self.batch = model, session, batch
        # Dropout once, so that its mask is that of a whole batch.
        self.factor = model.scorer.of_sessions(model.dropout(session))
        items = model.scorer.of_items(model.backbone.scored_items(interests))
        self._sum = _Sum()
        self.items: Tensor = _Collect.apply(items, self._sum)  # type: ignore[no-untyped-call]

    def scores(self, begin: int, end: int, *, training: bool = False) -> tuple[SessionBatch, Tensor]:
        """Sessions ``begin:end`` and their scores ``(end - begin, V)`` after the heads."""
        rows = slice(begin, end)
        part = self.batch.rows(begin, end)
        scores = _Product.apply(self.factor[rows], self.items, self._sum)  # type: ignore[no-untyped-call]
        return part, self.model.join_heads(scores, self.session[rows], part, training=training)


def can_divide(model: Scoring) -> bool:
    """Whether a model's scores, before the heads, are a product of session vectors and items."""
    return not model.backbone.has_own_scores() and type(model.scorer).is_product()


def in_blocks(model: Scoring, batch: SessionBatch, limit: int) -> Iterator[tuple[SessionBatch, Tensor]]:
    """Score a batch, at most `limit` scores at a time; for validation, test and prediction.

    A backbone with scores of its own reads a block of sessions at a time, any other the whole batch at once.

    Args:
        model: Model, in evaluation mode.
        batch: Sessions.
        limit: Number of scores in memory, at least those of one session.

    Yields:
        Sessions and their scores ``(b, V)``, in the order of the batch.
    """
    size = len(batch.lengths)
    rows = max(1, limit // model.backbone.num_items)
    if size <= rows:
        yield batch, model(batch)
        return
    with model.tables_once():
        if not can_divide(model):
            for begin in range(0, size, rows):
                part = batch.rows(begin, begin + rows)
                yield part, model(part)
            return
        blocks = RowBlocks(model, *model.read(batch))
        for begin in range(0, size, rows):
            yield blocks.scores(begin, begin + rows)


class _Sum:
    """Sum of the items' gradients over the blocks."""

    def __init__(self) -> None:
        self.gradient: Tensor | None = None


class _Product(Function):
    """``session @ items.T``; the gradient of the items goes to a sum, in place."""

    @staticmethod
    def forward(ctx: Any, session: Tensor, items: Tensor, total: _Sum) -> Tensor:
        ctx.save_for_backward(session, items)
        ctx.total = total
        scores: Tensor = session @ items.T
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        session, items = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            if ctx.total.gradient is None:
                ctx.total.gradient = torch.zeros_like(items)
            ctx.total.gradient.addmm_(gradient.T, session)
        return gradient @ items, None, None


class _Collect(Function):
    """The items; their gradient is the sum of all blocks, for autograd calls it after the last of them."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, total: _Sum) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.total = total
        return items.view_as(items)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        found, ctx.total.gradient = ctx.total.gradient, None
        return found if gradient is None else gradient if found is None else found + gradient, None
