"""Training, evaluation and memory with a million items, against the full softmax with a dense Adam."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.results import keep, row
from experiments.study.memory_watch import peak, resident
from llm4sbr import SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.contracts.batch import SessionBatch, batch_prefixes
from llm4sbr.nn.losses import BlockwiseSoftmax, FullSoftmax, RecommendationLoss, SampledSoftmax
from llm4sbr.training.row_adam import RowAdam

_SMOOTHING, _RATE, _DECAY = 0.1, 6e-3, 1e-5
LOSSES = {
    "full softmax, Adam": lambda: FullSoftmax(_SMOOTHING),
    "blockwise softmax, Adam": lambda: BlockwiseSoftmax(8, _SMOOTHING),
    "sampled softmax, RowAdam": lambda: SampledSoftmax(smoothing=_SMOOTHING),
}
FULL, BLOCKWISE, SAMPLED = LOSSES


def large_catalogue(
    items: int = 1_000_000,
    dim: int = 128,
    batch_size: int = 100,
    steps: int = 5,
    sessions: int = 128,
    json: Path | None = None,
) -> None:
    """Measure a training step and an evaluation of SR-GNN with a large catalogue, in processes of their own.

    Clicks follow a power law. A step is the whole step of the default bare model: graph, loss, backward,
    optimiser; times are medians. Memory is the peak of the process, in total and above what it holds after
    the imports.

    Example::

        python -m experiments benchmarks large_catalogue --json experiments/results/large_catalogue.json

    Args:
        items: Number of items.
        dim: Dimension of the vectors.
        batch_size: Number of sessions in a training batch.
        steps: Timed steps of the full softmax; of the sampled one ten times as many.
        sessions: Number of sessions to evaluate.
        json: File for the results.
    """
    context = multiprocessing.get_context("fork")  # this process has computed nothing yet
    found: dict[str, dict[str, float]] = {}
    for name in LOSSES:
        with context.Pool(1) as pool:
            count = steps * 10 if name == SAMPLED else steps
            found[name] = pool.apply(measure, (name, items, dim, batch_size, count, sessions))
    size = f"V {items:,}, B {batch_size}, d {dim}, SR-GNN, {torch.get_num_threads()} threads"
    rows: list[dict[str, Any]] = []
    for name, one in found.items():
        rows += [
            row(f"{name}: training", batch_size / one["step"], "sessions/s", note=size),
            row(f"{name}: peak memory", one["peak"], "MiB", note=size),
            row(f"{name}: peak memory above the imports", one["peak"] - one["imports"], "MiB", note=size),
        ]
    full, sampled = found[FULL], found[SAMPLED]
    above = [one["peak"] - one["imports"] for one in (sampled, full)]
    rows += [
        row("sampled over full: sessions/s", full["step"] / sampled["step"], "ratio", 20, note=size),
        row("sampled over full: peak memory", sampled["peak"] / full["peak"], "ratio", 0.2, "lower", size),
        row("sampled over full: memory above the imports", above[0] / above[1], "ratio", 0.2, "lower", size),
        row("validation", sessions / sampled["validation"], "sessions/s", note=size),
        row("prediction of the top 20", sessions / sampled["prediction"], "sessions/s", note=size),
        row("evaluation: peak memory", sampled["evaluation"], "MiB", note=size),
    ]
    keep("large_catalogue", rows, json)


def measure(name: str, items: int, dim: int, batch_size: int, steps: int, sessions: int) -> dict[str, float]:
    """Seconds of a step and of an evaluation, and the peak memory in MiB, of this process."""
    imports = resident(os.getpid())
    torch.manual_seed(0)
    model = model_of(items, dim, LOSSES[name]())
    maker = RowAdam if name == SAMPLED else torch.optim.Adam
    options = {} if name == SAMPLED else {"fused": True}
    optimizer = maker(model.parameters(), lr=_RATE, weight_decay=_DECAY, **options)
    times = []
    for _ in range(steps + 1):
        batch = batch_of(items, batch_size)
        began = time.perf_counter()
        optimizer.zero_grad()
        model.losses(batch)["loss"].backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    found = {"imports": imports, "step": statistics.median(times[1:]), "peak": peak()}
    model.zero_grad()
    if name != SAMPLED:
        return found
    model.eval()
    batch = batch_of(items, sessions)
    for what, work in (("validation", model.validation_step), ("prediction", model.predict_step)):
        began = time.perf_counter()
        with torch.inference_mode():
            work(batch, 0)
        found[what] = time.perf_counter() - began
    return {**found, "evaluation": peak()}


def model_of(items: int, dim: int, loss: RecommendationLoss) -> SBRModule:
    """The default bare model."""
    return SBRModule(SRGNN(items, dim), loss=loss)


def batch_of(items: int, size: int) -> SessionBatch:
    """Sessions of geometric lengths, and items by a power law."""
    lengths = torch.empty(size).geometric_(0.25).clamp_(max=50).long()

    def draw(count: int) -> Tensor:
        return (items ** torch.rand(count, dtype=torch.float64)).long().clamp_(1, items)

    prefixes = [draw(int(length)).tolist() for length in lengths]
    return batch_prefixes(prefixes, draw(size).tolist())
