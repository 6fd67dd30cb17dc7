"""Ranker: the best items of sessions, from session vectors, without the scores of the whole catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import is_finite
from llm4sbr.nn.functional import set_share
from llm4sbr.nn.heads import ItemTitles, RepeatExplore, TextScores
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.retrieval.retrieval import Retrieval
from llm4sbr.nn.retrieval.scan import Own
from llm4sbr.nn.scoring import Scoring

_HINT = "Leave the retrieval out: all scores are then computed"


class Ranker:
    r"""Ranks the items of a model whose scores are a product of a session's and of an item's vector.

    `TextScores` adds a product of its own, so both are one product of longer vectors. `RepeatExplore` shifts
    the session's own items: these are scored by themselves, and the search finds the best of all others and
    the log-sum-exp that the shift needs.

    Args:
        model: Model in evaluation mode, whose items stay as they are.
        retrieval: How items are found.

    Raises:
        InputError: If the scores are no such product, or the items are not finite.

    Warns:
        UserWarning: If an approximate retrieval is used only without the session's own items.
    """

    def __init__(self, model: Scoring, retrieval: Retrieval) -> None:
        self.model = model
        heads = _heads_of_a_product(model)
        last = heads[-1] if heads else None
        self.repeat = last if isinstance(last, RepeatExplore) else None
        if self.repeat is not None and retrieval.approximate:
            warnings.warn(
                "RepeatExplore compares the session's own items with all others: only requests without them "
                "(seen false) are approximate and fast, others are exact",
                UserWarning,
                stacklevel=3,
            )
        self.text = [head for head in heads if isinstance(head, TextScores)]
        with torch.no_grad():
            items = model.scorer.of_items(model.backbone.item_embeddings()).float()
            if self.text:
                items = torch.cat((items, *(head.titles.float() for head in self.text)), 1)
            if not is_finite(items):
                raise InputError("the item vectors are not finite", hint="Export another checkpoint")
            self.items = items.contiguous()  # (V, D)
            self.search = retrieval.over(self.items)

    def rank(
        self, batch: SessionBatch, k: int, allowed: Tensor | None = None, *, seen: bool = True
    ) -> tuple[Tensor, Tensor, Scores]:
        """The best items of each session, best first.

        Args:
            batch: Sessions.
            k: Number of items; at most ``V``.
            allowed: True for each item that may be recommended, for all sessions or for each.
            seen: Whether a session's own items may be recommended.

        Returns:
            Scores, columns, and scores over the catalogue by row; a score of ``-inf`` marks a missing item.

        Shapes:
            - allowed: ``(V,)`` or ``(B, V)`` bool
            - output: ``(B, k)`` float32 and ``(B, k)`` long

        Raises:
            InputError: If the session vectors are not finite.
        """
        session, _, heads_batch = self.model.read(batch)
        query = self._query(session, heads_batch)
        columns = batch.columns()
        own = Own(columns, batch.latest_clicks())
        log_odds = None if self.repeat is None else self.repeat.log_odds(session)
        found = self.search.search(query, k, own=own, allowed=allowed, log_sum=log_odds is not None and seen)
        every = Scores(self, query, own, log_odds)
        if not seen:
            return found.scores, found.columns, every
        of_own = torch.bmm(self.items[columns], query.unsqueeze(2)).squeeze(2)  # (B, L)
        of_own = of_own.masked_fill(~own.counted, float("-inf"))
        if log_odds is not None and found.log_sum is not None:
            step = log_odds + found.log_sum - of_own.logsumexp(1, keepdim=True)
            divided = own.counted.sum(1, keepdim=True) < len(self.items)  # the session has other items
            of_own = of_own + step.where(divided, torch.zeros_like(step))
        if allowed is not None:
            may = allowed.to(columns.device)
            may = may[columns] if may.ndim == 1 else may.gather(1, columns)
            of_own = of_own.masked_fill(~may, float("-inf"))
        best, places = torch.cat((found.scores, of_own), 1).topk(k, dim=1)
        return best, torch.cat((found.columns, columns), 1).gather(1, places), every

    def _query(self, session: Tensor, batch: SessionBatch) -> Tensor:
        """The sessions' factor of the scores, ``(B, D)``."""
        parts = [self.model.scorer.of_sessions(session).float()]
        for head in self.text:
            if batch.views is None:
                parts.append(parts[0].new_zeros(len(session), head.titles.size(1)))
            else:
                mask = batch.view_mask
                known = batch.views.new_ones(batch.views.shape[:2]).bool() if mask is None else mask
                parts.append(head.query(session, batch.views.to(head.mean.dtype), known).float())
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class Scores:
    """Scores over the catalogue by rows, each computed when it is read, in the precision of the search.

    Args:
        ranker: Ranker of the model.
        query: The sessions' factor of the scores.
        own: The sessions' own items.
        log_odds: Log-odds of a repeat; None without `RepeatExplore`.
    """

    def __init__(self, ranker: Ranker, query: Tensor, own: Own, log_odds: Tensor | None) -> None:
        self._ranker, self._query, self._own, self._log_odds = ranker, query, own, log_odds

    def __len__(self) -> int:
        return len(self._query)

    def __getitem__(self, rows: slice) -> Tensor:
        """Scores of some sessions, ``(b, V)``."""
        scores = self._ranker.search.scores(self._query[rows])
        if self._log_odds is None:
            return scores
        own = self._own
        return set_share(scores, own.columns[rows], own.counted[rows], self._log_odds[rows])


def _heads_of_a_product(model: Scoring) -> Sequence[ScoreHead]:
    """The heads that change the scores, in their order.

    Raises:
        InputError: If items cannot be found without all scores.
    """
    backbone, scorer = model.backbone, model.scorer
    name = type(backbone).__name__
    if backbone.has_own_scores() or not scorer.is_product():
        what = f"{name} has" if backbone.has_own_scores() else f"{type(scorer).__name__} computes"
        raise InputError(f"{what} scores of its own, so items are not found by their vectors", hint=_HINT)
    if type(backbone).scored_items is not SessionBackbone.scored_items:
        raise InputError(
            f"{name} computes its items anew for every batch, so there is no table of them", hint=_HINT
        )
    heads = [head for head in model.score_heads() if not _is(head, ItemTitles)]
    for place, head in enumerate(heads):
        if _is(head, TextScores) or (_is(head, RepeatExplore) and place == len(heads) - 1):
            continue
        what = type(head).__name__
        last = " unless it is the last head" if _is(head, RepeatExplore) else ""
        raise InputError(f"{what} needs the scores of all items{last}", hint=_HINT)
    return heads


def _is(head: Any, kind: type[ScoreHead]) -> bool:
    """Whether a head computes what a class of ours does."""
    return isinstance(head, kind) and type(head).forward is kind.forward
