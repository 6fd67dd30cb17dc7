"""Hooks that record an evaluation: inputs, scores and gates of each batch, without a second forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.training.ranking_module import RankingModule


class Sides(NamedTuple):
    """Interests and views as the fusion of a wrapped model receives them, and the gates that it computes."""

    h: Tensor  # (B, K, d) interest that each view is aligned with
    z: Tensor  # (B, K, d) projected views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    gates: Tensor | None  # (B, K); None where the fusion has no gates


class Seen(NamedTuple):
    """A batch of an evaluation, with its scores."""

    batch: SessionBatch
    scores: Tensor  # (B, V)
    sides: Sides | None  # None for a bare model


@contextmanager
def watching(module: RankingModule, tell: Callable[[Seen], None]) -> Iterator[None]:
    """Report every forward pass inside the block.

    Forward hooks do this, so it works under every strategy that Lightning's evaluation supports. The tensors
    are the model's own, on its device: copy what you need and keep no reference to them.

    Args:
        module: Bare or wrapped model.
        tell: Function that receives a `Seen` after each forward pass.
    """
    sides: list[Sides] = []

    def fused(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        h, z, mask = given[:3]
        sides[:] = [Sides(h, z, mask, made.gates)]

    def scored(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor):  # DDP also calls the module for a whole step, which returns no scores
            tell(Seen(given[0], made, sides.pop() if sides else None))

    hooks = [module.register_forward_hook(scored)]
    fusion = getattr(module, "fusion", None)
    if isinstance(fusion, nn.Module):
        hooks.append(fusion.register_forward_hook(fused))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
