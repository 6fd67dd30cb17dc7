"""Registry of the count-based baselines, with the values of their settings to search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llm4sbr.baselines import Baseline, ItemKNN, Popularity, SessionKNN


class Grid(NamedTuple):
    """A baseline and the values of its settings."""

    title: str  # name in tables
    make: Callable[..., Baseline]
    fixed: dict[str, Any]
    values: dict[str, list[Any]]  # by setting; the search starts from the first value


GRIDS = {
    "pop": Grid("popularity", Popularity, {}, {"remind": [True, False]}),
    "s-pop": Grid("session popularity", Popularity, {"within_session": True}, {}),
    "item-knn": Grid(
        "item-kNN",
        ItemKNN,
        {},
        {
            "remind": [True, False],
            "weighting": ["last", "linear", "quadratic", "harmonic"],
            "regularization": [20.0, 0.0, 5.0, 80.0],
            "alpha": [0.5, 0.25, 0.75, 1.0],
            "neighbors": [100, 500],
        },
    ),
    "sequential-rules": Grid(
        "sequential rules",
        ItemKNN,
        {"order": "later"},
        {
            "remind": [True, False],
            "pair_decay": ["harmonic", "quadratic", "linear", "uniform"],
            "weighting": ["last", "linear", "quadratic", "harmonic"],
            "alpha": [1.0, 0.75, 0.5],
            "regularization": [0.0, 5.0, 20.0],
            "neighbors": [100, 500],
        },
    ),
    "sknn": Grid(
        "session-kNN",
        SessionKNN,
        {},
        {"remind": [True, False], "k": [500, 50, 100, 200, 1000], "sample_size": [1000, 500, 2500, 0]},
    ),
    "v-sknn": Grid(
        "V-SKNN",
        SessionKNN,
        {"similarity": "dot"},
        {
            "remind": [True, False],
            "weighting": ["linear", "quadratic", "log", "harmonic"],
            "score_weighting": ["uniform", "linear", "quadratic", "harmonic"],
            "idf": [0.0, 1.0, 5.0, 10.0],
            "k": [500, 100, 200, 1000],
            "sample_size": [1000, 500, 2500],
        },
    ),
    "vstan": Grid(
        "VSTAN",
        SessionKNN,
        {"weighting": "exponential"},
        {
            "remind": [True, False],
            "score_weighting": ["exponential", "uniform"],
            "item_horizon": [2.0, 1.0, 4.0, None],
            "horizon": [2.0, 1.0, 4.0],
            "idf": [0.0, 1.0, 5.0, 10.0],
            "k": [500, 100, 200, 1000],
            "sample_size": [1000, 500, 2500],
        },
    ),
}
