"""Metrics of each test example, and bootstrap intervals of paired differences: pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DRAWS = 2000  # number of bootstrap samples
FloatArray = npt.NDArray[np.float64]


def gains(ranks: FloatArray, metric: str) -> FloatArray:
    """Return the metric of each example.

    >>> [gains(np.array([1.0, 3.0, 21.0]), metric).tolist() for metric in ("recall@20", "mrr@2", "ndcg@20")]
    [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]
    """
    name, k = metric.split("@")
    worth = {"recall": np.ones_like(ranks), "mrr": 1 / ranks, "ndcg": 1 / np.log2(1 + ranks)}[name]
    return np.where(ranks <= int(k), worth, 0.0)


def interval(
    difference: FloatArray, session: npt.NDArray[np.int64], *, seeds: bool = False
) -> tuple[float, float]:
    """Compute the bootstrap 95 % interval of the mean.

    Whole sessions are drawn, since the examples of a session are not independent.

    Args:
        difference: Difference of each example ``(E,)``, or of each seed and example ``(S, E)``, averaged over
            seeds.
        session: Session of each example ``(E,)``.
        seeds: Whether to draw the seeds, too: the interval then covers other trainings as well as other
            sessions. With few seeds it is a rough estimate.
    """
    generator, dice = np.random.default_rng(0), np.random.default_rng(1)
    each = np.atleast_2d(difference)  # (S, E)
    total = np.stack([np.bincount(session, one) for one in each], axis=1)  # (n, S)
    count = np.bincount(session)  # (n,)
    means = []
    for _ in range(DRAWS):
        times = np.bincount(generator.integers(0, len(count), len(count)), minlength=len(count))  # (n,)
        of_seeds = (times @ total) / max(int(times @ count), 1)  # (S,)
        means.append(of_seeds[dice.integers(0, len(each), len(each))].mean() if seeds else of_seeds.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
