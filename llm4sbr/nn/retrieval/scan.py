"""Exhaustive search: every item is scored in a low precision, and the few that may be the best exactly."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import is_finite
from llm4sbr.nn.retrieval.tables import Float32Table, ItemTable
from llm4sbr.nn.topk import top_columns

_SCORES = 1 << 19  # scores that are computed at a time: they stay in the processor's cache
_GATHERED = 1 << 22  # numbers of item vectors that are gathered at a time
_LOWEST = torch.finfo(torch.float32).min
_ROWS = 16  # sessions whose candidates are scored together


class Own(NamedTuple):
    """Columns of the sessions' own items, which a search leaves out.

    Entries that are not counted repeat a counted one.
    """

    columns: Tensor  # (B, L) long
    counted: Tensor  # (B, L) bool


class Nearest(NamedTuple):
    """The best other items of each session, best first; a score of ``-inf`` marks a missing one."""

    scores: Tensor  # (B, k) float32
    columns: Tensor  # (B, k) long
    log_sum: Tensor | None  # (B, 1): log of the sum of exp(score) over all other items


class ScannedItems:
    r"""Finds the items with the highest products, exactly.

    Every score is computed in the precision of a table, by blocks, and only the highest score of each group
    of 16 or 64 items is kept. With :math:`\delta` for the bound on the error of a score, and ``t`` for the
    k-th highest of these, only groups that reach :math:`t - 2 \delta` can hold one of the k best items. Their
    items are scored in float32. So the result is that of a product in float32, up to the last bits and to
    ties within them, whatever the table's precision. Memory grows with ``B V / 16``, not with ``B V``.

    Args:
        items: Item vectors in float32.
        table: The same items in the precision of the scan.

    Shapes:
        - items: ``(V, D)``
    """

    def __init__(self, items: Tensor, table: ItemTable) -> None:
        self.items, self.table, self.memory = items, table, table.memory

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        own: Own | None = None,
        allowed: Tensor | None = None,
        log_sum: bool = False,
    ) -> Nearest:
        """Find the best items of each query.

        Args:
            query: Queries.
            k: Number of items; at most ``V``.
            own: Items to leave out, for each query.
            allowed: True for each item that may be found, for all queries or for each.
            log_sum: Whether to compute the log-sum-exp over all items but the own ones, allowed or not. It is
                computed from the scores of the scan.

        Shapes:
            - query: ``(B, D)`` float32; allowed: ``(V,)`` or ``(B, V)`` bool

        Raises:
            InputError: If a query is not finite.
        """
        refuse_broken(query)
        rounded = self.table.rounded(query)
        group = 64 if len(query) == 1 else 16
        highest, total = self._scan(rounded, len(query), group, own, allowed, log_sum)
        slack = self.table.slack(query, rounded)  # (B,)
        threshold = top_columns(highest, min(k, highest.size(1)))[0][:, -1] - 2 * slack
        # With fewer than k finite groups the threshold is -inf, and a group of -inf has nothing to find.
        count = ((highest >= threshold.unsqueeze(1)) & (highest > float("-inf"))).sum(1)  # (B,)
        best = query.new_full((len(query), k), float("-inf"))
        columns = torch.zeros_like(best, dtype=torch.long)
        for rows in torch.split(count.argsort(), _ROWS):
            most = int(count[rows[-1]])
            if most:
                groups = top_columns(highest[rows], most)[1]  # (b, most)
                mine = None if own is None else own.columns[rows]
                may = allowed[rows] if allowed is not None and allowed.ndim == 2 else allowed
                found = self._exactly(query[rows], groups, group, k, mine, may)
                best[rows], columns[rows] = found
        return Nearest(best, columns, total)

    def scores(self, query: Tensor) -> Tensor:
        """Scores of all items in the table's precision, ``(B, V)`` float32."""
        rounded = self.table.rounded(query)
        return self.table.product(rounded, 0, len(self.items))[:, : len(query)].T.float()

    def _scan(
        self,
        query: tuple[Tensor, ...],
        rows: int,
        group: int,
        own: Own | None,
        allowed: Tensor | None,
        log_sum: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Highest score of every group of items, ``(B, G)`` float32, and the log-sum-exp."""
        step = len(self.items) if self.table.at_once(query) else max(_SCORES // rows // group, 1) * group
        places = None if own is None else _Places(own)
        if allowed is not None:
            allowed = allowed.to(self.items.device).view(-1, len(self.items)).T  # (V, 1) or (V, B)
        every, sums = [], []
        for begin in range(0, len(self.items), step):
            end = min(begin + step, len(self.items))
            scores = self.table.product(query, begin, end)[:, :rows]  # (n, B)
            if places is not None:
                places.leave_out(scores, begin, end)
            highest = _highest(scores, group)  # (n / group, B)
            if log_sum:
                top = highest.amax(0, keepdim=True).float().clamp_min_(_LOWEST)  # (1, B)
                sums.append(scores.sub(top).exp_().sum(0, keepdim=True).log_().add_(top))
            if allowed is not None:
                highest = _highest(scores.masked_fill(~allowed[begin:end], float("-inf")), group)
            every.append(highest)
        found = torch.cat(every).T.float().contiguous()
        return found, torch.cat(sums).logsumexp(0).unsqueeze(1) if log_sum else None

    def _exactly(
        self, query: Tensor, groups: Tensor, group: int, k: int, own: Tensor | None, allowed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The best items of some groups, by their scores in float32."""
        inside = torch.arange(group, device=groups.device)
        best = query.new_full((len(query), k), float("-inf"))
        columns = torch.zeros_like(best, dtype=torch.long)
        step = max(1, _GATHERED // (len(query) * group * self.items.size(1)))
        for part in torch.split(groups, step, dim=1):
            ids = (part.unsqueeze(2) * group + inside).flatten(1)  # (b, n)
            left_out = ids >= len(self.items)
            ids = ids.clamp_max(len(self.items) - 1)
            if own is not None:
                left_out |= (ids.unsqueeze(2) == own.unsqueeze(1)).any(2)
            if allowed is not None:
                may = allowed.to(ids.device)
                left_out |= ~(may[ids] if may.ndim == 1 else may.gather(1, ids))
            scores = torch.bmm(self.items[ids], query.unsqueeze(2)).squeeze(2)
            both = torch.cat((best, scores.masked_fill_(left_out, float("-inf"))), 1)
            best, places = both.topk(k, dim=1)
            columns = torch.cat((columns, ids), 1).gather(1, places)
        return best, columns


class _Places:
    """Own items by column, so that a block finds its own."""

    def __init__(self, own: Own) -> None:
        row, click = torch.nonzero(own.counted, as_tuple=True)
        self.columns, order = own.columns[row, click].sort()
        self.rows = row[order]
        self._sorted: list[int] = self.columns.tolist()

    def leave_out(self, scores: Tensor, begin: int, end: int) -> None:
        """Set the scores ``(n, B)`` of the own items of a block to ``-inf``."""
        first, last = bisect_left(self._sorted, begin), bisect_left(self._sorted, end)
        if first < last:
            scores[self.columns[first:last] - begin, self.rows[first:last]] = float("-inf")


def _highest(scores: Tensor, group: int) -> Tensor:
    """Highest score of each group of consecutive items, ``(G, B)``; the last group may be smaller."""
    even = len(scores) // group * group
    found = scores[:even].view(even // group, group, scores.size(1)).amax(1)
    if even == len(scores):
        return found
    return torch.cat((found, scores[even:].amax(0, keepdim=True)))


def top_items(
    query: Tensor,
    items: Tensor,
    k: int,
    *,
    own: Own | None = None,
    allowed: Tensor | None = None,
    log_sum: bool = False,
) -> Nearest:
    """Find the items with the highest products, in float32 and in bounded memory.

    There is never more than a block of the scores ``(B, V)``.

    Args:
        query: Session vectors.
        items: Item vectors.
        k: Number of items; at most ``V``.
        own: Items to leave out, for each session.
        allowed: True for each item that may be found, for all sessions or for each.
        log_sum: Whether to compute the log-sum-exp over all items but the own ones.

    Shapes:
        - query: ``(B, D)``, items: ``(V, D)``, allowed: ``(V,)`` or ``(B, V)`` bool

    >>> found = top_items(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0], [3.0, 0.0], [2.0, 1.0]]), 2)
    >>> found.scores.tolist(), found.columns.tolist()
    ([[3.0, 2.0]], [[1, 2]])
    """
    query, items = query.float(), items.float()
    search = ScannedItems(items, Float32Table(items))
    return search.search(query, k, own=own, allowed=allowed, log_sum=log_sum)


def refuse_broken(query: Tensor) -> None:
    """Refuse the session vectors of a broken model.

    Raises:
        InputError: If a number is NaN or infinite.
    """
    if not is_finite(query):
        raise InputError("the scores are not finite", hint="The model is broken: export another checkpoint")
