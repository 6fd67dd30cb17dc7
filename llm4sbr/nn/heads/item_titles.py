"""ItemTitles: adds title embeddings to the backbone's own item embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.heads.title_axes import carried_titles, title_axes

ItemTable = nn.Embedding | nn.EmbeddingBag


class ItemTitles(ScoreHead):
    r"""Adds title embeddings to the backbone's own item embeddings (ours).

    .. math:: V = E + T P^T

    with ``E`` the table that the backbone learns, ``T`` the titles along the ``p`` principal axes of the
    catalogue (`title_axes`) and ``P`` a linear map. Both the clicks and the scored items are embedded with
    ``V``, so items with similar titles share what the model learns, and an item with few or no clicks still
    has a useful embedding. ``P`` starts with orthogonal columns of the average length of an embedding, so
    before training items are neighbours if their titles are. Without titles ``V`` is ``E``.

    The gain in Recall is largest for items with few clicks. The head does not change the scores that it
    receives: they are already computed with ``V``.

    Args:
        axes: ``p``, number of principal axes; at most ``d_t`` are used.

    Raises:
        InputError: If the model is bare, without views and titles.
    """

    reads_views = False

    def __init__(self, axes: PositiveInt = 100) -> None:
        super().__init__()
        self.axes = axes
        self._tables: list[TitledTable] | None = None  # modules of the backbone, not submodules here

    def attach_text(self, backbone: SessionBackbone, text_dim: int, num_views: int) -> None:
        """Add titles to every item table of the backbone; their map is trained with the backbone.

        A backbone without such a table is not changed, and a warning says so.
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
            titled = TitledTable(table.weight, backbone.num_items, text_dim, min(self.axes, text_dim))
            parametrize.register_parametrization(table, "weight", titled)
            self._tables.append(titled)

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Pass the catalogue's titles to the tables."""
        for table in self._tables or ():
            table.read_titles(titles, mask)

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Return the scores unchanged."""
        if self._tables is None:
            raise InputError(
                "ItemTitles needs titles, which a bare model does not read",
                hint="Give the head to LLM4SBRWrapper",
            )
        return scores


class TitledTable(nn.Module):
    """A parametrization (`torch.nn.utils.parametrize`) that adds titles to an item table.

    Args:
        weight: Item table with ``V + 1`` rows (row 0 is padding) or ``V`` rows; only its size and scale are
            read.
        num_items: ``V``.
        text_dim: ``d_t``, size of a title embedding.
        axes: ``p``.

    Shapes:
        - forward: ``(V + 1, d)`` or ``(V, d)``, to the same
    """

    titles: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(self, weight: Tensor, num_items: PositiveInt, text_dim: int, axes: int) -> None:
        super().__init__()
        # Saved in the checkpoint: the axes are unique only up to rotation, and serving needs no view store.
        self.register_buffer("titles", weight.new_zeros(len(weight), axes))
        self.register_buffer("mean", weight.new_zeros(text_dim))  # with the axes, for titles of new items
        self.register_buffer("basis", weight.new_zeros(text_dim, axes))
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
        """Inverse for assigning a table: the learned part is the assigned table itself."""
        return weight

    def read_titles(self, titles: Tensor, mask: Tensor) -> None:
        """Take the catalogue's titles.

        Args:
            titles: Title embeddings.
            mask: Which items have a title.

        Shapes:
            - titles: ``(V, d_t)``, row ``k - 1`` is item ``k``; mask: ``(V,)`` bool

        Raises:
            InputError: If the number of titles differs from ``V``, or they have fewer dimensions than axes.
        """
        expected = len(self.titles) - self.padding
        if len(titles) != expected:
            raise InputError(f"there must be {expected} titles, one an item", value=len(titles))
        found = title_axes(titles, mask, self.titles.size(1))
        self.mean.copy_(found.mean)
        self.basis.copy_(found.basis)
        self.titles[self.padding :] = found.titles.to(self.titles)

    def rows_of_items(self) -> dict[str, int]:
        """The titles."""
        return {"titles": self.padding}

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert the titles to another catalogue; the axes and the projection stay."""
        return {**before, **carried_titles(before, change, self.padding)}


@contextmanager
def item_tables_once(backbone: SessionBackbone) -> Iterator[None]:
    """Compute the tables with titles once inside the block, however often the backbone reads them.

    They are computed at the start of the block: if the backbone's first read ran under ``no_grad``, the
    cached table would have no gradient. A backbone without such a table leaves the cache alone, which all
    threads share.
    """
    titled = [module for module in backbone.modules() if parametrize.is_parametrized(module, "weight")]
    if not titled:
        yield
        return
    with parametrize.cached():
        for module in titled:
            _ = module.weight
        yield


def item_tables(backbone: SessionBackbone) -> list[ItemTable]:
    """The embedding modules that hold a backbone's items, with ``V`` rows or with ``V + 1`` for padding."""
    rows = (backbone.num_items, backbone.num_items + 1)
    found = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and module.num_embeddings in rows
        and module.embedding_dim == backbone.embedding_dim
    ]
    if len(found) > 1:  # with a small catalogue a position table may have the same size
        items = backbone.item_embeddings().sum()
        grads = torch.autograd.grad(items, [table.weight for table in found], allow_unused=True)
        found = [table for table, grad in zip(found, grads, strict=True) if grad is not None]
    return found
