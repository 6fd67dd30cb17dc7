"""Look on while a model is evaluated: what it saw of each session, without computing anything twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.training.ranking_module import RankingModule


class Sides(NamedTuple):
    """Behaviour and text as a wrapped model's fusion gets them, and the gates it makes of them."""

    h: Tensor  # (B, K, d) interest that each view is aligned with
    z: Tensor  # (B, K, d) projected views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    gates: Tensor | None  # (B, K); None where the fusion has no gates


class Seen(NamedTuple):
    """One batch."""

    batch: SessionBatch
    scores: Tensor  # (B, V)
    sides: Sides | None  # None for a bare model


@contextmanager
def watching(module: RankingModule, tell: Callable[[Seen], None]) -> Iterator[None]:
    """Tell of every forward pass inside the block.

    Hooks do it, so it works wherever Lightning's own evaluation does, under any strategy. What is told of is
    the model's own tensors, on its device: take what you need and let go of them.

    Args:
        module: A bare or wrapped model.
        tell: Called after each forward pass.
    """
    sides: list[Sides] = []

    def fused(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        h, z, mask = given[:3]
        sides[:] = [Sides(h, z, mask, made.gates)]

    def scored(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor):  # DDP also calls the module for a whole step, which makes something else
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
