"""Look on while a model is evaluated: what it saw of each session, without computing anything twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.nn.fusion import Fusion, shares
from llm4sbr.nn.scorers import Scorer
from llm4sbr.training.ranking_module import RankingModule


class Sides(NamedTuple):
    """Behaviour and text as a wrapped model's fusion gets them, and the gates it makes of them."""

    h: Tensor  # (B, K, d) interest that each view is aligned with
    z: Tensor  # (B, K, d) projected views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    gates: Tensor | None  # (B, K); None where the fusion has no gates
    fusion: Fusion


class Matched(NamedTuple):
    """What a scorer multiplies."""

    session: Tensor  # (B, d)
    items: Tensor  # (V, d)


class Seen(NamedTuple):
    """One batch."""

    batch: SessionBatch
    scores: Tensor  # (B, V)
    sides: Sides | None  # None for a bare model
    matched: Matched | None = None  # None for a backbone with scores of its own

    def shares(self, place: int) -> list[float] | None:
        """Share of each view in the score of the first recommendation of one session (`llm4sbr.nn.fusion`).

        It is the score of session and item, before heads such as `RepeatExplore` join.

        Returns:
            One number a view; None for a bare model, a fusion without gates, or scores that are no product.
        """
        if self.sides is None or self.matched is None:
            return None
        row = slice(place, place + 1)
        parts = self.sides.fusion.parts(self.sides.h[row], self.sides.z[row], self.sides.mask[row])
        if parts is None:
            return None
        best = self.scores[row].argmax(1)
        found: list[float] = shares(parts, self.matched.session[row], self.matched.items[best])[0].tolist()
        return found


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
    matched: list[Matched] = []

    def fused(fusion: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        assert isinstance(fusion, Fusion)
        h, z, mask = given[:3]
        sides[:] = [Sides(h, z, mask, made.gates, fusion)]

    def multiplied(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        matched[:] = [Matched(*given)]

    def scored(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor):  # DDP also calls the module for a whole step, which makes something else
            found = sides.pop() if sides else None
            tell(Seen(given[0], made, found, matched.pop() if matched else None))

    hooks = [module.register_forward_hook(scored)]
    fusion, scorer = getattr(module, "fusion", None), getattr(module, "scorer", None)
    if isinstance(fusion, Fusion):
        hooks.append(fusion.register_forward_hook(fused))
    if isinstance(scorer, Scorer):
        hooks.append(scorer.register_forward_hook(multiplied))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
