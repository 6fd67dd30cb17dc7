"""Hooks that record an evaluation: inputs, scores and gates of each batch, without a second forward pass."""

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
    """Interests and views as the fusion of a wrapped model receives them, and the gates that it computes."""

    h: Tensor  # (B, K, d) interest that each view is aligned with
    z: Tensor  # (B, K, d) projected views; 0 where unknown
    mask: Tensor  # (B, K) bool: which views are known
    gates: Tensor | None  # (B, K); None where the fusion has no gates
    fusion: Fusion


class Matched(NamedTuple):
    """Factors of the scores: the inputs of a scorer."""

    session: Tensor  # (B, d)
    items: Tensor  # (V, d)


class Seen(NamedTuple):
    """An evaluated batch with its scores."""

    batch: SessionBatch
    scores: Tensor  # (B, V)
    sides: Sides | None  # None for a bare model
    matched: Matched | None = None  # None for a backbone with scores of its own

    def shares(self, place: int) -> list[float] | None:
        """Share of each view in the score of the first recommendation of one session (`llm4sbr.nn.fusion`).

        The score is that of the scorer, without the changes by heads such as `RepeatExplore`.

        Returns:
            One number per view; None for a bare model, a fusion without gates, or scores that are no product.
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
def evaluation_hooks(module: RankingModule, record: Callable[[Seen], None]) -> Iterator[None]:
    """Report every forward pass inside the block.

    Forward hooks do this, so it works under every strategy that Lightning's evaluation supports. The tensors
    are the model's own, on its device: copy what you need and keep no reference to them.

    Args:
        module: Bare or wrapped model.
        record: Function that receives a `Seen` after each forward pass.
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
        if isinstance(made, Tensor):  # DDP also calls the module for a whole step, which returns no scores
            found = sides.pop() if sides else None
            record(Seen(given[0], made, found, matched.pop() if matched else None))

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
