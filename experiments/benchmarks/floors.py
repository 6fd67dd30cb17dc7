"""A training step of each backbone against its own matrix products alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.benchmarks.results import keep, row
from experiments.study.names import backbones as registered
from llm4sbr import SBRModule, backbones
from llm4sbr.contracts.batch import SessionBatch, batch_prefixes
from llm4sbr.testing import make_examples

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "convolution"}
Product = Callable[[], object]


class Products(TorchDispatchMode):
    """Records the matrix products inside the block, each on random numbers in tensors of the same layout."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it if it is a product."""
        if func.overloadpacket.__name__ in PRODUCTS:
            like = [torch.randn_like(one) if isinstance(one, Tensor) else one for one in args]
            self.found.append(lambda: func(*like, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def floors(
    names: list[str] | None = None,
    num_items: int = 12_101,
    dim: int = 100,
    batch_size: int = 100,
    batches: int = 8,
    threads: int = 1,
    json: Path | None = None,
) -> None:
    """Time a training step of each bare backbone with the default settings, and its matrix products alone.

    Both run in turn over the same batches, whose lengths are those of Beauty: geometric, at most 50, sorted
    into batches of similar length. Times are medians of the ratios. The note of a row has the operations that
    take the most time of the step.

    Example::

        python -m experiments benchmarks floors --json experiments/results/floors.json

    Args:
        names: Registered names of backbones; all by default.
        num_items: Number of items.
        dim: Dimension of the vectors.
        batch_size: Number of sessions in a batch.
        batches: Number of timed batches.
        threads: Number of threads of torch.
        json: File for the results.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    made = batches_of(num_items, batch_size, batches)
    sessions = [one[:length].tolist() for one, length in zip(made[0].item_ids, made[0].lengths, strict=True)]
    examples = make_examples([*sessions, *[[1, 2]]])
    rows = []
    for name in names or registered():
        model = SBRModule(getattr(backbones, name)(num_items, dim))
        model.read_training_sessions(examples, fitting=True)
        rows += measured(name, model, made)
    keep("floors", rows, json)


def measured(name: str, model: SBRModule, made: list[SessionBatch]) -> list[dict[str, Any]]:
    """Rows of a backbone: its step, and the ratio of the step to its products."""
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3, weight_decay=1e-5, fused=True)

    def step(batch: SessionBatch) -> None:
        optimizer.zero_grad()
        model.losses(batch)["loss"].backward()
        optimizer.step()

    ratios, seconds = [], []
    step(made[0])  # warm-up
    for batch in made:
        with Products() as products:
            optimizer.zero_grad()
            model.losses(batch)["loss"].backward()
        run_all(products.found)  # warm-up
        both = (partial(step, batch), partial(run_all, products.found))
        pairs = [tuple(timed(work) for work in both) for _ in range(3)]
        taken, floor = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios.append(taken / floor)
        seconds.append(taken)
    shares = dearest(partial(step, made[len(made) // 2]))
    note = "; ".join(f"{what} {share:.0%}" for what, share in shares)
    return [
        row(f"{name}: a step", 1000 * statistics.median(seconds), "ms"),
        row(f"{name}: a step over its products", statistics.median(ratios), "ratio", 1.5, "lower", note),
    ]


def dearest(work: Callable[[], object], count: int = 5) -> list[tuple[str, float]]:
    """Operations that take the most time of a run, with their shares."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        work()
    each = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in seen.key_averages()}
    total = sum(each.values())
    return [(key, each[key] / total) for key in sorted(each, key=lambda key: -each[key])[:count]]


def batches_of(num_items: int, size: int, count: int) -> list[SessionBatch]:
    """Random batches with graphs; items follow a power law."""
    pool = torch.empty(size * count).geometric_(0.15).clamp_(max=50).long().sort().values
    made = []
    for lengths in pool.view(count, size):
        prefixes = [
            (num_items ** torch.rand(int(length), dtype=torch.float64)).long().clamp(1, num_items).tolist()
            for length in lengths
        ]
        made.append(batch_prefixes(prefixes, torch.randint(1, num_items + 1, (size,)).tolist()))
    return made


def run_all(works: list[Product]) -> None:
    """Run each."""
    for work in works:
        work()


def timed(work: Callable[[], object]) -> float:
    """Seconds of a run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
