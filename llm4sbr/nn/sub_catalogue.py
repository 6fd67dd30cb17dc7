"""SubCatalogue: runs a whole model over some items of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue_change import CarriesOver
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.item_rows import RowsOfItems
from llm4sbr.nn.carry_over import item_rows
from llm4sbr.nn.heads.score_head import ScoreHead

if TYPE_CHECKING:
    from llm4sbr.nn.scoring import Scoring


class SubCatalogue:
    """Replaces every tensor with a row per item by the rows of some items, for the length of a block.

    The model then computes as if the catalogue had these items alone: its tables, their gradients and its
    scores have a row or a column for each of them. Gradients of the tables are sparse, for an optimiser that
    updates the touched rows (`RowAdam`). The parts say which tensors have rows of items: backbones and heads
    by `item_rows`, other modules by `RowsOfItems`.

    Args:
        model: Model to run.

    Raises:
        InputError: If a part of the model holds numbers of items, such as a graph of the whole catalogue, or
            its item table is not known.
    """

    def __init__(self, model: Scoring) -> None:
        self.model, self.num_items = model, model.backbone.num_items
        if not model.backbone.scores_each_item_alone:
            raise _refusal(model.backbone, "compares each item with the whole catalogue")
        rows = item_rows(model)
        if not any(name.startswith("backbone.") for name in rows):
            raise _refusal(model.backbone, "declares no table with a row per item (item_rows)")
        idle = {id(part) for head in model.score_heads() if not head.in_training for part in head.modules()}
        for prefix, module in model.named_modules():
            if id(module) in idle:
                continue
            if isinstance(module, RowsOfItems):
                rows |= {f"{prefix}.{name}": first for name, first in module.rows_of_items().items()}
            elif isinstance(module, CarriesOver):
                owner = module if isinstance(module, ScoreHead) else model.backbone
                raise _refusal(owner, f"reads items beyond the batch ({type(module).__name__})")
        self._tables = [
            (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], first)
            for name, first in rows.items()
        ]

    @contextmanager
    def over(self, items: Tensor, batch: SessionBatch) -> Iterator[SessionBatch]:
        """Run the model over some items inside the block.

        Args:
            items: Numbers of the items, sorted, without repetition; those of the batch are among them.
            batch: Sessions.

        Yields:
            The sessions; item ``items[k - 1]`` has the number ``k``.

        Shapes:
            - items: ``(U,)`` long in 1..V
        """
        kept: list[tuple[dict[str, Any], str, Tensor]] = []
        cut: dict[int, Tensor] = {}  # a shared table is cut once
        backbone = self.model.backbone
        try:
            for module, name, first in self._tables:
                parameter = name in module._parameters
                holder: dict[str, Any] = module._parameters if parameter else module._buffers
                whole = holder[name]
                if whole is None or not len(whole):
                    continue
                if id(whole) not in cut:
                    cut[id(whole)] = _rows(whole, self._index(items, first, len(whole)))
                kept.append((holder, name, whole))
                holder[name] = cut[id(whole)]
            backbone.num_items = len(items)
            yield _renumbered(batch, items)
        finally:
            backbone.num_items = self.num_items
            for holder, name, whole in kept:
                holder[name] = whole

    def _index(self, items: Tensor, first: int, length: int) -> Tensor:
        """Rows of some items, with the rows before and after all items."""
        before = torch.arange(first, device=items.device)
        after = torch.arange(first + self.num_items, length, device=items.device)
        return torch.cat((before, items - 1 + first, after))


def _rows(whole: Tensor, index: Tensor) -> Tensor:
    """Some rows of a table; a sparse gradient reaches the table."""
    if whole.ndim == 2 and whole.requires_grad:
        return embedding(index, whole, sparse=True)
    return whole[index]


def _renumbered(batch: SessionBatch, items: Tensor) -> SessionBatch:
    """The batch by the numbers of the items in `items`; 0 stays 0."""
    numbers = torch.cat((items.new_zeros(1), items))

    def renumber(ids: Tensor) -> Tensor:
        return torch.searchsorted(numbers, ids)

    graph = batch.graph
    return batch._replace(
        item_ids=renumber(batch.item_ids),
        target=renumber(batch.target),
        graph=None if graph is None else graph._replace(nodes=renumber(graph.nodes)),
    )


def _refusal(part: nn.Module, reason: str) -> InputError:
    return InputError(
        f"{type(part).__name__} {reason}, so it cannot be trained on a sample of the catalogue",
        hint="Use FullSoftmax or BlockwiseSoftmax, or another backbone",
    )
