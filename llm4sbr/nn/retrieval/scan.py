"""Exhaustive search: every item is scored in a low precision, and the few that may be the best exactly."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
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
_GROUP = 16  # items of which only the highest score is kept


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
    of 16 items is kept. With :math:`\delta` for the bound on the error of a score, and ``t`` for the
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
        highest, total = self._scan(rounded, len(query), own, allowed, log_sum)
        best, columns = query.new_empty((len(query), k)), torch.empty((len(query), k), dtype=torch.long)
        columns = columns.to(query.device)
        reach = query.new_full((len(query), 1), _LOWEST)  # a group of -inf has nothing to find
        if highest.size(1) >= k:
            threshold = top_columns(highest, k)[0][:, -1] - 2 * self.table.slack(query, rounded)
            reach = reach.maximum(threshold.unsqueeze(1))
        row, place = torch.nonzero(highest >= reach, as_tuple=True)  # (P,), by rows
        count = torch.bincount(row, minlength=len(query)).tolist()
        for begin, end in _parts(count, max(1, _SCORES // _GROUP)):
            first, last = sum(count[:begin]), sum(count[:end])
            pairs = row[first:last] - begin, place[first:last]
            rows = slice(begin, end)
            mine = None if own is None else own.columns[rows]
            may = allowed[rows] if allowed is not None and allowed.ndim == 2 else allowed
            best[rows], columns[rows] = self._exactly(query[rows], pairs, k, mine, may)
        return Nearest(best, columns, total)

    def scores(self, query: Tensor) -> Tensor:
        """Scores of all items in the table's precision, ``(B, V)`` float32."""
        rounded = self.table.rounded(query)
        return self.table.product(rounded, 0, len(self.items))[:, : len(query)].T.float()

    def _scan(
        self,
        query: tuple[Tensor, ...],
        rows: int,
        own: Own | None,
        allowed: Tensor | None,
        log_sum: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Highest score of every group of items, ``(B, G)`` float32, and the log-sum-exp."""
        step = len(self.items) if self.table.at_once(query) else max(_SCORES // rows // _GROUP, 1) * _GROUP
        places = None if own is None else _Places(own)
        if allowed is not None:
            allowed = allowed.to(self.items.device).view(-1, len(self.items)).T  # (V, 1) or (V, B)
        every, sums = [], []
        for begin in range(0, len(self.items), step):
            end = min(begin + step, len(self.items))
            scores = self.table.product(query, begin, end)[:, :rows].float()  # (n, B)
            if places is not None:
                places.leave_out(scores, begin, end)
            highest = _highest(scores)  # (n // 16, B)
            if allowed is None:
                every.append(highest)
            else:
                every.append(_highest(scores.masked_fill(~allowed[begin:end], float("-inf"))))
            if log_sum:
                top = highest.amax(0, keepdim=True) if len(highest) else scores.amax(0, keepdim=True)
                top.clamp_min_(_LOWEST)  # (1, B); -inf if all items are own ones
                rest = scores[len(highest) * _GROUP :]
                if len(rest):
                    top = top.maximum(rest.amax(0, keepdim=True))
                sums.append(scores.sub_(top).exp_().sum(0, keepdim=True).log_().add_(top))
        found = torch.cat(every).T.contiguous()
        return found, torch.cat(sums).logsumexp(0).unsqueeze(1) if log_sum else None

    def _exactly(
        self,
        query: Tensor,
        pairs: tuple[Tensor, Tensor],
        k: int,
        own: Tensor | None,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The best items of some groups, and of the rest after the last group, by scores in float32."""
        (row, place), dim = pairs, self.items.size(1)
        inside = torch.arange(_GROUP, device=row.device)
        count = torch.bincount(row, minlength=len(query))
        after = torch.arange(len(self.items) // _GROUP * _GROUP, len(self.items), device=row.device)
        width = (int(count.max()) if len(row) else 0) * _GROUP
        scores = query.new_full((len(query), max(width + len(after), k)), float("-inf"))
        ids = torch.zeros_like(scores, dtype=torch.long)
        ids[:, width : width + len(after)] = after
        scores[:, width : width + len(after)] = query @ self.items[after].T
        start = (torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]) * _GROUP
        grouped = self.items[: len(self.items) // _GROUP * _GROUP].view(-1, _GROUP * dim)
        step = max(1, _GATHERED // (_GROUP * dim))
        for part in torch.split(torch.arange(len(row), device=row.device), step):
            of, cells = row[part].unsqueeze(1), start[part].unsqueeze(1) + inside  # (p, 1), (p, 16)
            vectors = grouped.index_select(0, place[part]).view(len(part), _GROUP, dim)
            scores[of, cells] = torch.linalg.vecdot(vectors, query[of])  # (p, 16)
            ids[of, cells] = place[part].unsqueeze(1) * _GROUP + inside
        if own is not None:
            sought = own.sort(dim=1)[0]  # a search in (B, L) keeps (B, n, L) out of memory
            at = torch.searchsorted(sought, ids).clamp_max_(sought.size(1) - 1)
            scores.masked_fill_(sought.gather(1, at) == ids, float("-inf"))
        if allowed is not None:
            may = allowed.to(ids.device)
            scores.masked_fill_(~(may[ids] if may.ndim == 1 else may.gather(1, ids)), float("-inf"))
        best, places = scores.topk(k, dim=1)
        return best, ids.gather(1, places)


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


def _highest(scores: Tensor) -> Tensor:
    """Highest score of each whole group of consecutive items, ``(n // 16, B)``."""
    count = len(scores) // _GROUP
    return scores[: count * _GROUP].view(count, _GROUP, scores.size(1)).amax(1)


def _parts(count: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive rows whose candidates, padded to the largest number among them, are at most so many."""
    begin, largest = 0, 0
    for row, one in enumerate(count):
        largest = max(largest, one)
        if row > begin and (row + 1 - begin) * largest > most:
            yield begin, row
            begin, largest = row, one
    yield begin, len(count)


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
