"""View tables for stage 2: a localised view is stored as ``r`` ids and ``r`` weights, expanded per batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite
from llm4sbr.views.localization import view_from_titles

LONG_TERM, SHORT_TERM = "long_term", "short_term"
_ROWS_AT_ONCE = 4096  # dense views in memory at a time while their lengths are measured


class TitleTable(nn.Module):
    """Title embeddings after a row of zeros for padding, as buffers, so that `to(device)` moves them.

    Shapes:
        - titles: ``(V, d_t)``, mask: ``(V,)`` bool, True if the item has a title
        - buffers: ``titles (V + 1, d_t)``, ``mask (V + 1,)``

    Raises:
        InputError: An embedding is not finite.
    """

    titles: Tensor
    mask: Tensor

    def __init__(self, titles: Tensor, mask: Tensor) -> None:
        super().__init__()
        require_finite(titles, "the title embeddings")
        mask = torch.cat((mask.new_zeros(1), mask))  # (V + 1,)
        titles = torch.cat((titles.new_zeros(1, titles.size(1)), titles))  # (V + 1, d_t)
        self.register_buffer("titles", titles * mask.unsqueeze(1), persistent=False)
        self.register_buffer("mask", mask, persistent=False)


class ViewTable(nn.Module):
    """Provides the views of a batch, on the batch's device.

    Shapes:
        - output: views ``(B, K, d_t)`` float32, view_mask ``(B, K)`` bool; masked rows are zero
    """

    def __init__(self, table: TitleTable, views: Sequence[str]) -> None:
        super().__init__()
        self.table, self.views = table, tuple(views)

    @property
    def text_dim(self) -> int:
        """Dimension ``d_t`` of a view."""
        return self.table.titles.size(1)

    def forward(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Return the views and their mask."""
        raise NotImplementedError


class TitleViews(ViewTable):
    """Views without an LLM, from the titles alone: the baseline and the fallback.

    ``short_term`` is the last click's title; every other view is the mean over the session's titled clicks.
    """

    def forward(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Return the views and their mask; a view without a known title is masked."""
        titles, items = self.table.titles, batch.item_ids
        titled = self.table.mask[items]  # (B, L): padding is item 0, which has no title
        count = titled.sum(1, keepdim=True)  # (B, 1)
        mean = embedding_bag(items, titles, per_sample_weights=titled.to(titles.dtype), mode="sum")
        mean = mean / count.clamp(min=1)  # (B, d_t)
        last = items.gather(1, batch.lengths.unsqueeze(1) - 1).squeeze(1)  # (B,)
        latest, latest_mask = titles[last], self.table.mask[last]
        views = torch.stack([latest if view == SHORT_TERM else mean for view in self.views], dim=1)
        mask = [latest_mask if view == SHORT_TERM else count.squeeze(1) > 0 for view in self.views]
        return views, torch.stack(mask, dim=1)


class ScaledTitleViews(TitleViews):
    """Title views rescaled to the length of the views that they replace.

    A title has length 1 and a mean of titles less, while a localised view, a sum of ``r`` titles weighted by
    their similarities (Eq. 5, arXiv:2402.13840), has a length of about 2 or 3. One linear map projects both
    and the gates are not squashed, so without scaling a model could tell from the length alone which sessions
    have LLM views, and what it learns from localised views would affect title views at a third of the
    strength. The direction is kept.

    Args:
        table: Title embeddings.
        views: Names of the ``K`` views.
        norms: Target length of each view; 0 leaves a view unchanged.

    Shapes:
        - norms: ``(K,)`` float32
    """

    norms: Tensor

    def __init__(self, table: TitleTable, views: Sequence[str], norms: Tensor) -> None:
        super().__init__(table, views)
        self.register_buffer("norms", norms, persistent=False)

    def forward(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Return the views and their mask; a view without a known title is masked."""
        views, mask = super().forward(batch)
        scaled = normalize(views, dim=-1) * self.norms.unsqueeze(-1)  # (B, K, d_t)
        return torch.where(self.norms.unsqueeze(-1) > 0, scaled, views), mask


class UsedViews(ViewTable):
    """Another table with some of its views masked.

    Args:
        inner: Table that provides the views.
        use: Names of the views that stay unmasked.

    Raises:
        InputError: The table has no view of that name.
    """

    used: Tensor  # (K,) bool

    def __init__(self, inner: ViewTable, use: Sequence[str]) -> None:
        super().__init__(inner.table, inner.views)
        unknown = sorted(set(use) - set(inner.views))
        if unknown:
            raise InputError(f"there is no such view; there are {inner.views}", value=unknown)
        self.inner = inner
        self.register_buffer("used", torch.tensor([name in use for name in inner.views]), persistent=False)

    def forward(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Return the views and their mask."""
        views, mask = self.inner(batch)
        mask = mask & self.used
        return views * mask.unsqueeze(-1), mask


class StoredViews(ViewTable):
    """Views of known examples, indexed by `SessionBatch.example_index`.

    Args:
        table: Title embeddings.
        views: Names of the ``K`` views.
        mask: ``(E, K)`` bool, False if an example's view is unknown.
        fallback: Title views that replace unknown views; None masks them.
    """

    mask: Tensor

    def __init__(
        self, table: TitleTable, views: Sequence[str], mask: Tensor, fallback: TitleViews | None = None
    ) -> None:
        super().__init__(table, views)
        if fallback is not None and fallback.views != self.views:
            raise InputError(f"the fallback gives the views {fallback.views}, not {self.views}")
        self.fallback = fallback
        self.register_buffer("mask", mask, persistent=False)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the dense views of the given examples: ``(B,)`` to ``(B, K, d_t)``."""
        raise NotImplementedError

    def mean_norms(self, rows: Tensor) -> Tensor:
        """Mean length of each view over the given examples with a known view; 0 if no example has one.

        Shapes:
            - rows: ``(n,)`` long
            - output: ``(K,)`` float32
        """
        total = torch.zeros(len(self.views), dtype=torch.float64, device=rows.device)
        known = self.mask.index_select(0, rows)  # (n, K)
        for part in torch.split(rows[known.any(1)], _ROWS_AT_ONCE):
            lengths = self.gather(part).norm(dim=-1) * self.mask.index_select(0, part)  # (n', K)
            total += lengths.sum(0, dtype=torch.float64)
        return (total / known.sum(0).clamp(min=1)).float()

    def forward(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Views and their mask.

        Raises:
            InputError: An ``example_index`` is outside the table: the table belongs to other data.
        """
        rows = batch.example_index
        # On a GPU this check would synchronise with the device; there index_select itself stops the run.
        if (
            rows.device.type == "cpu"
            and rows.numel()
            and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.mask)
        ):
            raise InputError(
                f"an example_index lies outside the view table of {len(self.mask)} examples",
                value=(int(rows.min()), int(rows.max())),
                hint="Load the view table from the data module that creates the batches",
            )
        mask = self.mask.index_select(0, rows)  # (B, K)
        views = self.gather(rows) * mask.unsqueeze(-1)  # (B, K, d_t)
        if self.fallback is not None:
            other, other_mask = self.fallback(batch)
            views = torch.where(mask.unsqueeze(-1), views, other * other_mask.unsqueeze(-1))
            mask = mask | other_mask
        return views, mask


class LocalisedViews(StoredViews):
    """Localised views, 30 bytes each: ids and weights of ``r`` titles (Eq. 5, arXiv:2402.13840).

    Shapes:
        - ids: ``(E, K, r)`` int32, weights: ``(E, K, r)`` float16, mask: ``(E, K)`` bool
    """

    ids: Tensor
    weights: Tensor

    def __init__(
        self,
        table: TitleTable,
        views: Sequence[str],
        ids: Tensor,
        weights: Tensor,
        mask: Tensor,
        fallback: TitleViews | None = None,
    ) -> None:
        super().__init__(table, views, mask, fallback)
        require_finite(weights, "the views' weights")
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def gather(self, rows: Tensor) -> Tensor:
        """Return weighted sums of title rows."""
        ids = self.ids.index_select(0, rows)  # (B, K, r)
        weights = self.weights.index_select(0, rows)
        flat = view_from_titles(ids.flatten(0, 1), weights.flatten(0, 1), self.table.titles)  # (B * K, d_t)
        return flat.view(*ids.shape[:2], self.text_dim)  # (B, K, d_t)


class DenseViews(StoredViews):
    """Views stored as vectors, for ``r = 0``, which skips localisation.

    Shapes:
        - vectors: ``(E, K, d_t)`` float32, mask: ``(E, K)`` bool
    """

    vectors: Tensor

    def __init__(
        self,
        table: TitleTable,
        views: Sequence[str],
        vectors: Tensor,
        mask: Tensor,
        fallback: TitleViews | None = None,
    ) -> None:
        super().__init__(table, views, mask, fallback)
        require_finite(vectors, "the views")
        self.register_buffer("vectors", vectors, persistent=False)

    def gather(self, rows: Tensor) -> Tensor:
        """Return rows of the table."""
        return self.vectors.index_select(0, rows)
