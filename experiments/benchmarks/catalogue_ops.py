"""Time of `llm4sbr.nn.functional` relative to torch, alone and in a training step of SR-GNN."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import llm4sbr.nn.losses.full_softmax
import llm4sbr.nn.scorers
from experiments.benchmarks.results import keep, row
from llm4sbr import SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.nn.functional import smoothed_cross_entropy, unit_rows
from llm4sbr.nn.losses import FullSoftmax
from llm4sbr.nn.scorers import CosineScores
from llm4sbr.testing import make_batch

SMOOTHING = 0.1


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> float:
    """Return the median time of ours over theirs, run in turn; the first run of each is a warm-up."""
    times: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for _ in range(repeats + 1):
        for work, found in times.items():
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
    return statistics.median(times[ours][1:]) / statistics.median(times[theirs][1:])


def passes(work: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Return a function that runs a forward and a backward pass."""

    def run() -> None:
        x.grad = None
        found = work(x)
        found.backward(torch.ones_like(found))

    return run


def steps(num_items: int, batch_size: int, dim: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a training step with our operations, and one with those of torch."""
    torch.manual_seed(0)
    model = SBRModule(SRGNN(num_items, dim), heads=[], scorer=CosineScores(16.0), loss=FullSoftmax(SMOOTHING))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    lengths = torch.randint(1, 16, (batch_size,)).tolist()
    sessions = [torch.randint(1, num_items + 1, (length,)).tolist() for length in lengths]
    batch = make_batch(sessions, torch.randint(1, num_items + 1, (batch_size,)).tolist())

    def step() -> None:
        optimizer.zero_grad()
        model.losses(batch)["loss"].backward()
        optimizer.step()

    def with_torchs() -> None:
        llm4sbr.nn.scorers.unit_rows = lambda x: F.normalize(x, dim=-1)  # type: ignore[assignment]
        llm4sbr.nn.losses.full_softmax.smoothed_cross_entropy = lambda scores, column, smoothing: (
            F.cross_entropy(scores, column, label_smoothing=smoothing)
        )
        try:
            step()
        finally:
            llm4sbr.nn.scorers.unit_rows = unit_rows
            llm4sbr.nn.losses.full_softmax.smoothed_cross_entropy = smoothed_cross_entropy

    return step, with_torchs


def catalogue_ops(
    num_items: int = 12101,
    batch_size: int = 100,
    dim: int = 100,
    repeats: int = 50,
    threads: int = 1,
    json: Path | None = None,
) -> None:
    """Measure the time of our operations over the catalogue relative to those of torch.

    Each operation runs forward and backward over a batch of scores or a table of items, in turn in one
    process; times are medians. The training step is that of `SBRModule` with scaled cosines and label
    smoothing on random sessions; every second step uses the operations of torch.

    Example::

        python -m experiments benchmarks catalogue_ops --json experiments/results/catalogue_ops.json

    Args:
        num_items: Number of items in the catalogue.
        batch_size: Number of sessions in a batch.
        dim: Dimension of the vectors.
        repeats: Number of timed runs.
        threads: Number of threads of torch.
        json: File for the results.
    """
    torch.set_num_threads(threads)
    scores = torch.randn(batch_size, num_items, requires_grad=True)
    column = torch.randint(0, num_items, (batch_size,))
    items = torch.randn(num_items, dim, requires_grad=True)
    losses = (
        passes(lambda x: smoothed_cross_entropy(x, column, SMOOTHING), scores),
        passes(lambda x: F.cross_entropy(x, column, label_smoothing=SMOOTHING), scores),
    )
    unit = (passes(unit_rows, items), passes(lambda x: F.normalize(x, dim=-1), items))
    size = f"B {batch_size}, V {num_items}, d {dim}"
    measured = {
        "cross-entropy with smoothing over torch's": losses,
        "rows brought to length 1 over torch's": unit,
        "a training step of SR-GNN over one with torch's": steps(num_items, batch_size, dim),
    }
    found = [
        row(what, ratio(*pair, repeats), "ratio of medians", 1.0, "lower", size)
        for what, pair in measured.items()
    ]
    keep("catalogue_ops", found, json)
