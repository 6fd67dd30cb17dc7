"""Time that the queue of uncertain sessions adds to a server: entropies, and views that are added."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch

from experiments.benchmarks.results import keep, row
from experiments.benchmarks.serving import latencies, made, shop, write
from llm4sbr.nn.uncertainty import entropy
from llm4sbr.serving import Recommender
from llm4sbr.serving.server.asking import OF_A_CORE
from llm4sbr.serving.server.process import keep_memory

_SIZES = (1, 8, 32)  # sessions in a batch of the server
_VIEWS = 100_000


def asking(num_items: int = 100_000, dim: int = 128, requests: int = 60, json: Path | None = None) -> None:
    """Measure what the entropies add to a batch, and how long it takes to add the views of sessions.

    A wrapped SR-GNN with its default heads, random weights and one thread. Batches with and without
    entropies are scored in turn in one process.

    Example::

        python -m experiments benchmarks asking --json experiments/results/asking.json

    Args:
        num_items: Size of the catalogue.
        dim: Size of an item's embedding.
        requests: Number of batches of each size.
        json: File for the rows.
    """
    torch.set_num_threads(1)
    keep_memory()
    catalogue, sessions = shop(num_items, max(_SIZES) * requests)
    raw = [[catalogue.item_ids[item - 1] for item in session] for session in sessions]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        model = made("SRGNN", True, num_items, dim)
        folder = write(Path(place) / "bundle", model, catalogue, sessions[:9], torch.float32)
        recommender = Recommender.load(folder, check=False)
    found: list[float] = []

    def observe(_: object, scores: torch.Tensor, states: object) -> None:
        found.extend(float(entropy(scores[at : at + 1])) for at in range(len(scores)))  # as `Asking` does

    for size in _SIZES:
        batches = [raw[at * size : (at + 1) * size] for at in range(requests)]
        times = latencies(
            {
                "without": recommender.recommend,
                "with": lambda batch: recommender.recommend(batch, observe=observe),
            },
            batches,
        )
        without, with_ = (statistics.median(times[name]) for name in ("without", "with"))
        added = max(0.0, with_ - without) / size
        rows += [
            row(f"batch of {size}, without entropies: p50", without, "ms"),
            row(f"batch of {size}, with all entropies: p50", with_, "ms"),
            row(f"batch of {size}: entropy of a session", added, "ms"),
        ]
        if added:
            said = f"batch of {size}: entropies for {OF_A_CORE:.0%} of a core"
            rows.append(row(said, 1000 * OF_A_CORE / added, "sessions/s"))
    rows.append(row(f"adding {_VIEWS:,} views", _adding(recommender), "ms"))
    keep("asking", rows, json)


def _adding(recommender: Recommender) -> float:
    """Median milliseconds to add the views of sessions to a bundle's, beside the requests."""
    draw = torch.Generator().manual_seed(0)
    keys = [number.to_bytes(16, "big") for number in range(_VIEWS)]
    ids = torch.randint(1, recommender.catalogue.num_items + 1, (_VIEWS, 2, 5), generator=draw).int()
    views, served = {"ids": ids, "weights": torch.rand(ids.shape, generator=draw).half()}, recommender.views
    assert served is not None
    every = latencies({"add": lambda _: served.with_further(keys, views)}, range(6))
    return statistics.median(every["add"])
