"""Ranks of targets that are cold or warm, by models and by baselines without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.nn.metrics import target_ranks

Ranks = npt.NDArray[np.float64]
Scores = Callable[[Sequence[Sequence[str]]], Tensor]  # sessions of ids -> (B, V)


class Targets(NamedTuple):
    """Examples of one split, and which of their targets are cold."""

    sessions: list[list[str]]  # prefixes, by the shop's ids
    target: list[str]
    session: npt.NDArray[np.int64]  # (E,) session of each example
    cold: npt.NDArray[np.bool_]  # (E,)


def targets(full: ExampleSource, split: Split, cold: frozenset[str]) -> Targets:
    """The examples of a split by the shop's ids."""
    examples, ids = full.examples(split), full.catalogue.item_ids
    target = [ids[item - 1] for item in examples.target]
    return Targets(
        [[ids[item - 1] for item in prefix] for prefix in examples.prefixes()],
        target,
        examples.session,
        np.array([item in cold for item in target]),
    )


def some(given: Targets, count: int) -> Targets:
    """A random part of the examples, of which half have a cold target if there are enough of them."""
    order = np.random.default_rng(0).permutation(len(given.target))
    cold = [place for place in order if given.cold[place]][: count // 2]
    warm = [place for place in order if not given.cold[place]][: count // 2]
    kept = sorted([*cold, *warm])
    return Targets(
        [given.sessions[place] for place in kept],
        [given.target[place] for place in kept],
        given.session[kept],
        given.cold[kept],
    )


def rank(scores: Callable[[Sequence[Sequence[str]]], Tensor], index: dict[str, int], given: Targets) -> Ranks:
    """Rank of every target; infinite where the model knows neither the target nor any click."""
    ranks = np.full(len(given.target), np.inf)
    known = [
        place
        for place, session in enumerate(given.sessions)
        if given.target[place] in index and any(item in index for item in session)
    ]
    for begin in range(0, len(known), 500):
        part = known[begin : begin + 500]
        target = torch.tensor([index[given.target[place]] for place in part])
        ranks[part] = target_ranks(scores([given.sessions[place] for place in part]), target).numpy()
    return ranks


def nearest(titles: Tensor, index: dict[str, int]) -> Scores:
    """Cosine of every title with that of the last click; the session's own items come last."""

    def scores(sessions: Sequence[Sequence[str]]) -> Tensor:
        found = titles[[index[session[-1]] - 1 for session in sessions]] @ titles.T
        for place, session in enumerate(sessions):
            found[place, [index[item] - 1 for item in session]] = -1
        return found

    return scores


def popular(warm: ExampleSource, index: dict[str, int]) -> Scores:
    """Clicks in training; a cold item has none."""
    count = np.bincount(np.concatenate(warm.examples("train").sessions()))
    clicks = torch.zeros(len(index))
    for item, number in warm.catalogue.index.items():
        clicks[index[item] - 1] = float(count[number]) if number < len(count) else 0.0
    return lambda sessions: clicks.expand(len(sessions), -1)
