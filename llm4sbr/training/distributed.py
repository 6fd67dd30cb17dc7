"""Multi-process training: collectives and checks that make it equal to single-process training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, distributed, nn

T = TypeVar("T")
_SMALL = 1 << 16  # elements; the zero gradient of a parameter of this size has no measurable cost


def gather_rows(module: LightningModule, rows: Tensor, counts: list[int]) -> Tensor:
    """Concatenate the rows of all processes in rank order, with gradients. Collective: call it on every rank.

    The backward pass sums a row's gradient over all processes and returns it to the process that owns the
    row. If every process computes the same loss of the gathered rows, and the weight gradients are then
    averaged, as in DDP and FSDP, the result is the gradient of that loss.

    Args:
        module: Module with an attached Trainer, whose strategy gathers the rows.
        rows: Rows of this process; the number may differ between processes.
        counts: Number of rows of each process.

    Shapes:
        - rows: ``(B, ...)``
        - output: ``(sum of counts, ...)``
    """
    most = max(counts)
    padded = F.pad(rows, [0, 0] * (rows.dim() - 1) + [0, most - len(rows)])
    gathered = module.all_gather(padded, sync_grads=rows.requires_grad)  # (W, most, ...)
    assert isinstance(gathered, Tensor)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


class IdleParameters:
    """Gives a zero gradient to parameters that a loss does not depend on.

    DDP waits for a gradient of every parameter and stops a run in which a parameter gets none. Examples are
    the backbone's read-out under a fusion that does not use it, or the edge weights in a batch of one-click
    sessions. ``find_unused_parameters`` searches the graph in every step. Here the first loss decides: a
    large parameter that it depends on is assumed to be used in every step, and all other parameters get a
    zero term in every loss.
    """

    def __init__(self) -> None:
        self._kept: list[nn.Parameter] | None = None  # parameters with a zero term in every loss

    def touch(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Return the loss unchanged in value, with every parameter in its graph."""
        if self._kept is None:
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            reached = _leaves(loss)
            self._kept = [p for p in trained if p.numel() <= _SMALL or id(p) not in reached]
        return loss + 0 * sum((p.sum() for p in self._kept), start=loss.new_zeros(()))


def _leaves(loss: Tensor) -> set[int]:
    """Python ids of the leaf tensors in a loss's graph."""
    seen, leaves, stack = set(), set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        stack.extend(before for before, _ in node.next_functions)
    return leaves


def from_all_processes(own: T) -> list[T]:
    """Gather one Python object per process, in rank order. Collective: call it on every rank.

    The objects are pickled; use it for small host data, such as a few sample sessions.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return parts
