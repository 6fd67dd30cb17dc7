"""Operations that wrapping adds to a training step, and time of its losses for all views or view by view."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import llm4sbr.nn.alignment
from experiments.benchmarks.results import keep, row
from llm4sbr import LLM4SBRWrapper, SBRModule, backbones
from llm4sbr.nn.alignment import alignment_and_uniformity
from llm4sbr.testing import make_batch

FREE = {  # views of existing memory, or allocation alone
    "view", "t", "transpose", "detach", "expand", "unsqueeze", "squeeze", "slice", "select", "permute",
    "_unsafe_view", "split", "alias", "unbind", "as_strided", "empty", "empty_like", "chunk",
}  # fmt: skip
WAITS = {"nonzero", "_local_scalar_dense", "index"}  # `index` by a mask counts its non-zeros
Losses = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Operations(TorchDispatchMode):
    """Counts the operations inside the block, and those that wait for their result."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        name = func.overloadpacket.__name__
        self.seen[name] += name not in FREE
        by_mask = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        self.waits += by_mask or (name in WAITS and name != "index")
        return func(*args, **(kwargs or {}))


def one_by_one(z: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute alignment and uniformity by plain torch operations, one view at a time."""

    def uniformity(x: Tensor) -> Tensor:
        if len(x) < 2:
            return x.sum() * 0
        unit = F.normalize(x, dim=-1)
        exponent = 4 * (unit @ unit.T) - 4
        exponent = exponent.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -torch.inf)
        return exponent.flatten().logsumexp(0) - math.log(len(x) * (len(x) - 1))

    aligned, uniform = [], []
    for view in range(z.size(1)):
        known = mask[:, view]
        one, other = z[known, view], h[known, view]
        apart = F.normalize(one, dim=-1) - F.normalize(other, dim=-1)
        aligned.append(apart.square().sum(-1).mean() if len(one) else one.sum() + other.sum())
        uniform.append((uniformity(one) + uniformity(other)) / 2)
    return torch.stack(aligned).mean(), torch.stack(uniform).mean()


def counted(model: SBRModule, batch: Any, losses: Losses = alignment_and_uniformity) -> Operations:
    """Count the operations of a forward and a backward pass."""
    llm4sbr.nn.alignment.alignment_and_uniformity = losses  # type: ignore[attr-defined]
    try:
        with Operations() as operations:
            model.losses(batch)["loss"].backward()
    finally:
        llm4sbr.nn.alignment.alignment_and_uniformity = alignment_and_uniformity  # type: ignore[attr-defined]
    return operations


def milliseconds(
    works: dict[str, Losses], size: int, dim: int, repeats: int, device: str
) -> dict[str, float]:
    """Return the median time of both losses and their gradients; the first run is a warm-up."""
    z, h = (torch.randn(size, 2, dim, device=device, requires_grad=True) for _ in range(2))
    mask = torch.rand(size, 2, device=device) < 0.9
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            sum(work(z, h, mask)).backward()  # type: ignore[union-attr]
            if device != "cpu":
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def wrapped_step(
    names: list[str] | None = None,
    sizes: list[int] | None = None,
    dim: int = 100,
    repeats: int = 30,
    device: str = "cpu",
    json: Path | None = None,
) -> None:
    """Count the operations that wrapping adds to a training step, and time its losses.

    On a GPU, the number of operations bounds the time of a step of these models, and every operation whose
    result the host needs stalls it. Both kinds are counted, forward and backward, for a bare model, for the
    wrapped model, and for the wrapped model with losses view by view from plain torch operations. The times
    of the losses are medians of runs in turn in one process.

    Example::

        python -m experiments benchmarks wrapped_step --json experiments/results/wrapped_step.json

    Args:
        names: Classes of `llm4sbr.backbones`; STAMP, SRGNN and NARM by default.
        sizes: Numbers of sessions in a batch; 100, 200 and 1000 by default.
        dim: Dimension of the vectors.
        repeats: Number of timed runs.
        device: Device of the losses.
        json: File for the results.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sessions = [[1 + (n * place) % 50 for place in range(1, 2 + n % 9)] for n in range(100)]
    batch = make_batch(sessions, [1 + n % 50 for n in range(100)])
    seen = batch._replace(views=torch.randn(100, 2, 384), view_mask=torch.ones(100, 2, dtype=torch.bool))
    found = []
    for name in names or ("STAMP", "SRGNN", "NARM"):
        backbone = getattr(backbones, name)
        wrapped = LLM4SBRWrapper(backbone(50, dim), heads=[])
        each = {
            "bare": counted(SBRModule(backbone(50, dim), heads=[]), batch),
            "wrapped": counted(wrapped, seen),
            "wrapped, losses view by view": counted(wrapped, seen, one_by_one),
        }
        for what, operations in each.items():
            found.append(row(f"{name} {what}: operations", operations.seen.total(), "a step"))
            found.append(row(f"{name} {what}: waits for their result", operations.waits, "a step"))
    works: dict[str, Losses] = {"at once": alignment_and_uniformity, "view by view": one_by_one}
    for size in sizes or (100, 200, 1000):
        taken = milliseconds(works, size, dim, repeats, device)
        note = ", ".join(f"{name} {value:.2f} ms" for name, value in taken.items())
        share = taken["at once"] / taken["view by view"]
        found.append(
            row(f"losses of {size} sessions, at once over view by view", share, "time", 1, "lower", note)
        )
    keep("wrapped_step", found, json, device)
