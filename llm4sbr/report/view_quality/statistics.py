"""Metrics of a view by itself, before any training: pure functions, without models.

A view is a vector in the space of the titles (Eq. 5, arXiv:2402.13840). It therefore ranks the catalogue
without training, by its cosine with every title; a good view ranks the true next item near the top.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from llm4sbr.nn.metrics import target_ranks

METRICS = ("hit@5", "hit@20", "hit@100", "mrr@20")
FloatArray = npt.NDArray[np.float64]
_BLOCK = 1 << 22  # numbers that the bootstrap draws at a time: 32 MB


class Ranks(NamedTuple):
    """Ranks of the true next items in rankings of the whole catalogue."""

    every: Tensor  # (B,) float64, in 1..V, a half where scores tie
    unclicked: Tensor  # (B,) float64: without the session's own clicks; inf where the target is one of them
    nearest: Tensor  # (B,) long: the item ranked first


def title_scores(views: Tensor, titles: Tensor, mask: Tensor) -> Tensor:
    """Compute the cosine of each view with each title (the similarity of Eq. 4, arXiv:2402.13840).

    Items without a title rank below all others. A zero vector ties with every title, so its target has the
    middle rank.

    Shapes:
        - views: ``(B, d_t)``, titles: ``(V, d_t)`` with unit rows, mask: ``(V,)`` bool, False without title
        - output: ``(B, V)`` float32

    >>> title_scores(torch.tensor([[2.0, 0.0]]), torch.eye(2), torch.tensor([True, True])).tolist()
    [[1.0, 0.0]]
    """
    scores = normalize(views.float(), dim=-1) @ titles.T  # (B, V)
    return scores.masked_fill_(~mask, -torch.inf)


def rank_targets(scores: Tensor, item_ids: Tensor, target: Tensor) -> Ranks:
    """Rank the targets twice: among all items, and with the session's own clicks left out.

    A language model tends to repeat an item of its prompt, and the title nearest to a click is the click
    itself: the second ranking does not penalise either of them for that. It cannot contain a target that was
    clicked before, whose rank is therefore infinite.

    Shapes:
        - scores: ``(B, V)``, item_ids: ``(B, L)`` long, padded with 0, target: ``(B,)`` long in 1..V
    """
    every = target_ranks(scores, target)
    goal = target.unsqueeze(1)  # (B, 1)
    aim = scores.gather(1, goal - 1)  # (B, 1)
    items = item_ids.sort(dim=1).values  # (B, L)
    once = items != pad(items[:, :-1], (1, 0))  # each distinct click once; padding does not count
    own = scores.gather(1, (items - 1).clamp(min=0))  # (B, L)
    higher = (once & ~(own <= aim)).sum(1)  # a NaN counts as higher, as in `target_ranks`
    ties = (once & (own == aim)).sum(1)
    unclicked = (every - higher - ties / 2).masked_fill((items == goal).any(1), torch.inf)
    return Ranks(every, unclicked, scores.argmax(1) + 1)


def gains(ranks: FloatArray, metric: str) -> FloatArray:
    """Return the metric of each example: up to rank K, 1 (``hit@K``) or 1 / rank (``mrr@K``); else 0.

    >>> gains(np.array([1.0, 2.5, 6.0]), "mrr@5").tolist()
    [1.0, 0.4, 0.0]
    """
    kind, k = metric.split("@")
    return np.where(ranks <= int(k), 1.0 if kind == "hit" else 1 / ranks, 0.0)


def chance(candidates: FloatArray, metric: str) -> FloatArray:
    """Return the expected metric of a random order of the candidates; it is 0 for 0 candidates.

    >>> chance(np.array([10.0, 4.0, 0.0]), "hit@5").tolist()
    [0.5, 1.0, 0.0]
    """
    kind, k = metric.split("@")
    top = np.minimum(candidates, int(k))
    if kind == "mrr":  # the harmonic number H_top
        top = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, int(k) + 1))))[top.astype(np.int64)]
    return np.asarray(top / np.maximum(candidates, 1), dtype=np.float64)


def intervals(
    values: FloatArray, session: npt.NDArray[np.int64], draws: int = 2000, seed: int = 0
) -> FloatArray:
    """Compute bootstrap 95 % intervals of the means of several columns; NaN for fewer than two sessions.

    The bootstrap draws whole sessions, since the examples of a session are not independent, and the same
    sessions for every column: a column of differences gets the interval of a paired comparison.

    Args:
        values: One column per measure.
        session: Session of each example.
        draws: Number of bootstrap samples.
        seed: Seed of the draws.

    Shapes:
        - values: ``(E, M)``, session: ``(E,)``
        - output: ``(2, M)``: low and high

    >>> intervals(np.array([[1.0], [1.0], [1.0]]), np.array([7, 7, 9])).tolist()
    [[1.0], [1.0]]
    """
    place = np.unique(session, return_inverse=True)[1]
    count = np.bincount(place).astype(np.float64)  # (S,) examples of each session
    sessions = len(count)
    if sessions < 2:
        return np.full((2, values.shape[1]), np.nan)
    total = np.stack([np.bincount(place, column) for column in values.T], axis=1)  # (S, M)
    generator, means = np.random.default_rng(seed), []
    block = max(1, _BLOCK // sessions)
    for begin in range(0, draws, block):
        rows = min(block, draws - begin)
        drawn = generator.integers(0, sessions, (rows, sessions)) + sessions * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * sessions).reshape(rows, sessions)
        weights = times.astype(np.float64)  # how often each session was drawn
        means.append((weights @ total) / (weights @ count)[:, None])  # (rows, M)
    return np.asarray(np.percentile(np.concatenate(means), [2.5, 97.5], axis=0), dtype=np.float64)
