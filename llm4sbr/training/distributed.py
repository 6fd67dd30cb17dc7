"""Several processes that train one model: what makes them compute what one process would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, distributed, nn

T = TypeVar("T")
_SMALL = 1 << 16  # elements: asked for a gradient whether used or not, at no cost that shows


def gather_rows(module: LightningModule, rows: Tensor, counts: list[int]) -> Tensor:
    """Rows of all processes, one process after the other; gradients go back to where a row came from.

    The gradient that arrives is summed over the processes. Where each of them computes the same loss of the
    gathered rows, and the gradients of the weights are then averaged, as in DDP and FSDP, the result is the
    gradient of that loss.

    Args:
        module: It knows its Trainer's strategy.
        rows: Of this process; processes may have different numbers of them.
        counts: How many each process has.

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
    """Gives parameters that a loss does not depend on a gradient of zero.

    DDP waits for a gradient of every parameter and stops a run in which one gets none: a fusion that does
    without the backbone's own read-out, say, or a batch of one-click sessions that have no edges.
    ``find_unused_parameters`` looks for them in every step; here a large table that the first loss depends
    on is trusted to be needed always, and the others are asked every time.
    """

    def __init__(self) -> None:
        self._asked: list[nn.Parameter] | None = None

    def touch(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """The same loss, dependent on every parameter."""
        if self._asked is None:
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            reached = _leaves(loss)
            self._asked = [p for p in trained if p.numel() <= _SMALL or id(p) not in reached]
        return loss + 0 * sum((p.sum() for p in self._asked), start=loss.new_zeros(()))


def _leaves(loss: Tensor) -> set[int]:
    """Ids of the leaves of a loss's graph."""
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
    """What each process has, one after the other; every process must ask.

    For a few small things of the host, such as what is shown of some sessions.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return parts
