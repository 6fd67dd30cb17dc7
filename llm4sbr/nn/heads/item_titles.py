"""What an item is called, in what an item is: titles in the backbone's own item embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.heads.title_axes import title_axes

ItemTable = nn.Embedding | nn.EmbeddingBag


class ItemTitles(ScoreHead):
    r"""Titles in the backbone's own item embeddings (ours).

    .. math:: V = E + T P^T

    with ``E`` the table that the backbone learns, ``T`` the titles along the ``p`` principal axes of the
    catalogue (`title_axes`) and ``P`` one linear map. Clicks are read with ``V`` and items are scored with
    it, so what is learned of an item holds for all items of like titles, and one that has few clicks, or
    none, is not a stranger. ``P`` starts with orthogonal columns, as long as an embedding is on average:
    before training, items are neighbours as their titles are. Without titles ``V`` is ``E``.

    It brings most Recall where items have few clicks. The scores that arrive are made with ``V`` already, so
    they leave as they came.

    Args:
        axes: ``p``; at most ``d_t`` are used.

    Raises:
        InputError: The model has no text side.
    """

    def __init__(self, axes: int = 100) -> None:
        super().__init__()
        if axes < 1:
            raise InputError("item titles take at least one axis", value=axes)
        self.axes = axes
        self._tables: list[TitledTable] | None = None  # parts of the backbone, so no submodules here

    def attach_text(self, backbone: SessionBackbone, text_dim: int, num_views: int) -> None:
        """Put titles into every item table of the backbone; they are trained with it.

        A backbone without such a table stays as it is, with a warning.
        """
        tables = item_tables(backbone)
        if not tables:
            warnings.warn(
                f"{type(backbone).__name__} has no nn.Embedding of {backbone.num_items} items and "
                f"{backbone.embedding_dim} columns, so no titles go into its items; "
                "leave out ItemTitles if that is meant.",
                stacklevel=2,
            )
        self._tables = []
        for table in tables:
            titled = TitledTable(table.weight, backbone.num_items, min(self.axes, text_dim))
            parametrize.register_parametrization(table, "weight", titled)
            self._tables.append(titled)

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Hand the catalogue's titles to the tables."""
        for table in self._tables or ():
            table.read_titles(titles, mask)

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """The scores as they came."""
        if self._tables is None:
            raise InputError(
                "ItemTitles needs titles, which a bare model does not read",
                hint="Give the head to LLM4SBRWrapper",
            )
        return scores


class TitledTable(nn.Module):
    """A parametrization (`torch.nn.utils.parametrize`) of an item table: the table with titles in it.

    Args:
        weight: The table, ``V + 1`` rows with padding in front, or ``V``; read for its size and scale.
        num_items: ``V``.
        axes: ``p``.

    Shapes:
        - forward: ``(V + 1, d)`` or ``(V, d)``, to the same
    """

    titles: Tensor

    def __init__(self, weight: Tensor, num_items: int, axes: int) -> None:
        super().__init__()
        # In the checkpoint: the axes are unique up to rotation only; serving needs no view store.
        self.register_buffer("titles", weight.new_zeros(len(weight), axes))
        self.padding = len(weight) - num_items
        self.projection = nn.Linear(axes, weight.size(1), bias=False)
        nn.init.orthogonal_(self.projection.weight)
        with torch.no_grad():
            self.projection.weight.mul_(weight[self.padding :].norm(dim=-1).mean())

    def forward(self, weight: Tensor) -> Tensor:
        """The table with titles."""
        enriched: Tensor = weight + self.projection(self.titles)
        return enriched

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is learned of a table that is set: the table itself."""
        return weight

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Take the catalogue's titles.

        Args:
            titles: Title embeddings.
            mask: Which items have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

        Raises:
            InputError: Titles of another catalogue, or of fewer dimensions than axes.
        """
        expected = len(self.titles) - self.padding
        if len(titles) != expected:
            raise InputError(f"there must be {expected} titles, one an item", value=len(titles))
        self.titles[self.padding :] = title_axes(titles, mask, self.titles.size(1)).titles.to(self.titles)


@contextmanager
def item_tables_once(backbone: SessionBackbone) -> Iterator[None]:
    """Within it the tables with titles are computed once, however often the backbone reads them.

    They are computed at the start: a backbone whose first look is under ``no_grad`` would else keep a table
    without gradients.
    """
    with parametrize.cached():
        for module in backbone.modules():
            if parametrize.is_parametrized(module, "weight"):
                _ = module.weight
        yield


def item_tables(backbone: SessionBackbone) -> list[ItemTable]:
    """The embedding modules that hold a backbone's items: a row for each, or one more for padding."""
    rows = (backbone.num_items, backbone.num_items + 1)
    found = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and module.num_embeddings in rows
        and module.embedding_dim == backbone.embedding_dim
    ]
    if len(found) > 1:  # a table of positions can be as long in a small shop
        items = backbone.item_embeddings().sum()
        grads = torch.autograd.grad(items, [table.weight for table in found], allow_unused=True)
        found = [table for table, grad in zip(found, grads, strict=True) if grad is not None]
    return found
