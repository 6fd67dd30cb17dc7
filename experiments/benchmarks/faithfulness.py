"""Whether explanations name the click that an item depends on: what its removal costs the item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.benchmarks.results import keep, row
from experiments.study.data import data_module
from experiments.study.intervals import interval
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import ExampleSource
from llm4sbr.serving import Explanation, Recommender

FloatArray = npt.NDArray[np.float64]


def faithfulness(
    bundle: Path, data: str, sessions: int = 1000, seed: int = 0, json: Path | None = None
) -> None:
    """Measure what an item loses with the click that its explanation names, and how large effects are.

    The item is the first one recommended that the session lacks; the named click is the one with the largest
    effect on its log-probability. A loss is the binary logarithm of the ratio of the ranks without the click
    and with it: 1 if the rank doubles. Sessions of the test split with at least three clicks are drawn.

    Example::

        python -m experiments benchmarks faithfulness --bundle bundle --data experiments/data/beauty.yaml
            --json experiments/results/faithfulness.json

    Args:
        bundle: Bundle of `export`.
        data: Data module YAML, with the items of the bundle.
        sessions: Number of sessions.
        seed: Seed of the draw.
        json: File for the rows.

    Raises:
        InputError: If no session of the test split is long enough.
    """
    recommender, source = Recommender.load(bundle), data_module(data, None)
    reasons = [reason(recommender, session) for session in drawn(source, sessions, seed)]
    losses = [losses_of(found) for found in reasons]
    named, other = (np.array([one[place] for one in losses]) for place in (0, 1))
    alone = np.arange(len(losses))
    low, high = interval(named - other, alone)
    surely = f"95 % interval {low:.2f} to {high:.2f}"
    keep(
        "faithfulness",
        [
            row("sessions", len(losses), ""),
            row("log2 of the rank's growth without the named click", float(named.mean()), ""),
            row("the same without another click, on average", float(other.mean()), ""),
            row("difference", float((named - other).mean()), "", 0.0, note=surely),
            row("sessions in which the named click costs more", 100 * float((named > other).mean()), "%"),
            row("sessions in which another costs more", 100 * float((named < other).mean()), "%"),
            row("mean size of the effect of a click", size(reasons, "clicks"), "", note="log-probability"),
            row("mean size of the effect of a view", size(reasons, "views"), "", note="log-probability"),
            row("mean size of the effect of a head", size(reasons, "heads"), "", note="log-probability"),
        ],
        json,
    )  # fmt: skip


def reason(recommender: Recommender, session: list[str]) -> Explanation:
    """Explanation of the best item that the session lacks."""
    item = recommender.recommend([session], k=1, seen=False)[0].item_ids[0]
    return recommender.explain(session, item)


def size(reasons: list[Explanation], parts: str) -> float:
    """Mean absolute effect of the `clicks`, `views` or `heads` of explanations; 0 without any."""
    effects = [abs(one.effect) for found in reasons for one in getattr(found, parts)]
    return float(np.mean(effects)) if effects else 0.0


def losses_of(found: Explanation) -> tuple[float, float]:
    """Loss of the item without the click that its explanation names; the mean without others."""
    costs = np.log2([one.rank_without / found.rank for one in found.clicks])
    named = int(np.argmax([one.effect for one in found.clicks]))
    return float(costs[named]), float(np.delete(costs, named).mean())


def drawn(source: ExampleSource, count: int, seed: int) -> list[list[str]]:
    """Ids of the clicks of drawn test sessions with at least three clicks, without their last one."""
    ids = source.catalogue.item_ids
    every: list[Any] = [clicks[:-1] for clicks in source.examples("test").sessions() if len(clicks) > 3]
    if not every:
        raise InputError("no session of the test split has three clicks before its last one")
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [[ids[item - 1] for item in every[place]] for place in sorted(chosen)]
