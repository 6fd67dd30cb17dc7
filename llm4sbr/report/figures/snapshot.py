"""Snapshot of a model: ranks, gates and spaces, recorded from the forward passes of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from llm4sbr.contracts.examples import Examples
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.report.evaluation_hooks import Seen, evaluation_hooks
from llm4sbr.report.sessions import batch_of
from llm4sbr.training.distributed import from_all_processes
from llm4sbr.training.ranking_module import RankingModule


class Spaces(NamedTuple):
    """Interests and views of some sessions, in the space in which the alignment loss compares them."""

    h: Tensor  # (M, K, d) interests
    z: Tensor  # (M, K, d) projected views; 0 where unknown
    mask: Tensor  # (M, K) bool: which views are known


class Snapshot(NamedTuple):
    """Results of ``N`` evaluated examples, and the spaces of ``M`` of them; on the CPU."""

    rank: Tensor  # (N,) float32, of the true next item
    length: Tensor  # (N,) long, clicks
    gates: Tensor | None  # (N, K) float32; None where the fusion has no gates
    spaces: Spaces | None  # None for a bare model


class SnapshotRecorder:
    """Records a `Snapshot`, batch by batch.

    Args:
        sample: ``example_index`` of each example whose spaces are recorded.
    """

    def __init__(self, sample: Sequence[int] = ()) -> None:
        self.sample = torch.tensor(sorted(sample), dtype=torch.long)
        self._whole: dict[str, list[Tensor]] = {"index": [], "rank": [], "length": [], "gates": []}
        self._part: dict[str, list[Tensor]] = {"index": [], "h": [], "z": [], "mask": []}

    def add(self, seen: Seen) -> None:
        """Record a batch; rows without a target are padding and are left out."""
        batch, sides = seen.batch, seen.sides
        known = batch.target > 0
        rank = target_ranks(seen.scores, batch.target.clamp(min=1))
        whole = {"index": batch.example_index, "rank": rank.float(), "length": batch.lengths}
        if sides is not None and sides.gates is not None:
            whole["gates"] = sides.gates.float()
        for name, value in whole.items():
            self._whole[name].append(value[known].detach().cpu())
        if sides is None:
            return
        chosen = known & torch.isin(batch.example_index, self.sample.to(batch.example_index.device))
        if chosen.any():
            h, z = sides.h.float(), sides.z.float()
            part = {"index": batch.example_index, "h": h, "z": z, "mask": sides.mask}
            for name, value in part.items():
                self._part[name].append(value[chosen].detach().cpu())

    def result(self) -> Snapshot:
        """Return the snapshot over all ranks, in example order. Collective: call it on every rank."""
        whole, part = (
            _in_order(from_all_processes({name: torch.cat(values) for name, values in of.items() if values}))
            for of in (self._whole, self._part)
        )
        return Snapshot(
            whole.get("rank", torch.zeros(0)),
            whole.get("length", torch.zeros(0, dtype=torch.long)),
            whole.get("gates"),
            Spaces(part["h"], part["z"], part["mask"]) if part else None,
        )


@torch.no_grad()
def snapshot_spaces(model: RankingModule, examples: Examples, rows: Sequence[int]) -> Spaces | None:
    """Compute both spaces of some examples with the current weights; None for a bare model.

    Collective: call it on every rank.

    Args:
        model: Bare or wrapped model; it reads its views as in an evaluation.
        examples: Examples of a split.
        rows: Rows of ``examples``.
    """
    recorder, mode = SnapshotRecorder([examples.first_index + row for row in rows]), model.training
    model.eval()
    with evaluation_hooks(model, recorder.add):
        batch = move_data_to_device(batch_of(examples, rows), model.device)
        model.finite_scores(batch, model(batch))
    model.train(mode)
    return recorder.result().spaces


def evenly(count: int, total: int) -> list[int]:
    """Return at most ``count`` of ``total`` row numbers, evenly spaced.

    >>> evenly(3, 9), evenly(5, 2)
    ([0, 4, 8], [0, 1])
    """
    return torch.linspace(0, total - 1, min(count, total)).round().long().tolist()


def _in_order(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the rows of all ranks in example order, each example once."""
    filled = [part for part in parts if part]
    if not filled:
        return {}
    together = {name: torch.cat([part[name] for part in filled]) for name in filled[0]}
    index = together.pop("index")
    order = index.argsort(stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[order][1:] != index[order][:-1]
    return {name: value[order][first] for name, value in together.items()}
