"""Which part of a model computed a number that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import is_finite


class Staged(Protocol):
    """A model that shows the results of a forward pass one by one."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Weights by name."""
        ...

    def stages(self, batch: SessionBatch) -> Iterator[tuple[str, Tensor]]:
        """Names and results of a forward pass, in the order in which they are computed."""
        ...


@torch.no_grad()
def first_not_finite(model: Staged, batch: SessionBatch) -> str | None:
    """Find the first part of a model whose numbers are not finite, by a second forward pass.

    Args:
        model: Model in the state in which it computed the number.
        batch: Batch for which it did.

    Returns:
        Name of a weight or of a result; None if the second pass is finite, as with another dropout mask.
    """
    for name, weight in model.named_parameters():
        if not is_finite(weight):
            return f"the weight {name}"
    for name, value in model.stages(batch):
        # A score of -inf is a masked item.
        if bool(torch.isnan(value).any()) or bool((value == math.inf).any()):
            return name
    return None


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class LossCheck:
    """Stops a training at its first loss that is not finite, before the weights change.

    On a CPU the check reads one number a step. On another device the number is copied while the backward pass
    runs, and read after that pass has been queued, so that the device does not wait for the host.
    """

    def __init__(self) -> None:
        self._losses: dict[str, Tensor] = {}
        self._batch: SessionBatch | None = None
        self._total: Tensor | None = None
        self._host: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def start(self, losses: Mapping[str, Tensor], batch: SessionBatch) -> None:
        """Keep the losses of a step for `finish`; ``loss`` is their sum, which alone is read.

        Args:
            losses: Scalars by name.
            batch: Batch of the step.
        """
        self._losses, self._batch = dict(losses), batch
        self._total = losses["loss"].detach()
        if self._total.device.type == "cuda":
            if self._host is None:
                self._host, self._copied = torch.empty((), pin_memory=True), _event()
            assert self._copied is not None
            self._host.copy_(self._total, non_blocking=True)
            self._copied.record()

    def finish(self, model: Staged, step: int) -> None:
        """Check the losses of a step; call it after the backward pass.

        Args:
            model: Model that computed them.
            step: Number of the optimiser's step, from 1.

        Raises:
            InputError: If the loss is not finite; the message names the step and the part.
        """
        if self._total is None or self._batch is None:
            return
        if self._total.device.type == "cuda":
            assert self._copied is not None
            assert self._host is not None
            self._copied.synchronize()
            total = self._host.item()
        else:
            total = self._total.item()
        losses, batch = self._losses, self._batch
        self._losses, self._batch, self._total = {}, None, None
        if math.isfinite(total):
            return
        parts = [name for name, value in losses.items() if name != "loss" and not is_finite(value)]
        named = f" ({', '.join(parts)})" if parts else ""
        part = first_not_finite(model, batch)
        raise InputError(
            f"the loss{named} of step {step} is not finite"
            + ("" if part is None else f"; the first numbers that are not are those of {part}"),
            value=total,
            hint="Check that part, or train with a lower learning rate or with --trainer.gradient_clip_val",
        )
