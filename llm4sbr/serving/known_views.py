"""Views of a bundle: known views by the content of a session, and title views where the run had them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.serving.manifest import ServedViewsSpec
from llm4sbr.views.tables import (
    DenseViews,
    LocalisedViews,
    ScaledTitleViews,
    StoredViews,
    TitleTable,
    TitleViews,
    UsedViews,
    ViewTable,
)

# `known`: the run's own views. `titles`: title views in place of an unknown view. `predicted`: predictions in
# place of unknown views. `absent`: none.
ViewState = Literal["known", "titles", "predicted", "absent"]


class KeyIndex:
    """Rows of session keys, by binary search over sorted keys; the arrays may be mapped from a file.

    Args:
        keys: Two big-endian halves of every key as signed numbers, sorted.

    Shapes:
        - keys: ``(n, 2)`` int64

    >>> import numpy as np
    >>> made = [bytes([1] * 16), bytes([255] * 16)]
    >>> index = KeyIndex(KeyIndex.pack(made)[0])
    >>> index.rows([made[1], made[0], bytes(16)]).tolist()
    [0, 1, -1]
    """

    def __init__(self, keys: npt.NDArray[np.int64]) -> None:
        self.high, self.low = np.ascontiguousarray(keys[:, 0]), keys[:, 1]
        falling = self.high[1:] < self.high[:-1]
        if falling.any():
            raise InputError("the session keys are not sorted")

    @staticmethod
    def pack(keys: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sort keys: the halves of every key, ``(n, 2)``, and the order that sorts them, ``(n,)``."""
        halves = np.frombuffer(b"".join(keys), ">i8").astype(np.int64).reshape(len(keys), 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        return halves[order], order

    def rows(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Row of each key; -1 for an unknown one."""
        halves = np.frombuffer(b"".join(keys), ">i8").astype(np.int64).reshape(len(keys), 2)
        first = np.searchsorted(self.high, halves[:, 0], "left")
        after = np.searchsorted(self.high, halves[:, 0], "right")
        found = np.full(len(keys), -1, dtype=np.int64)
        for place, (begin, end, low) in enumerate(zip(first, after, halves[:, 1], strict=True)):
            for row in range(begin, end):  # more than one only if 8 bytes of two keys are equal
                if self.low[row] == low:
                    found[place] = row
        return found


class SeveralIndexes:
    """Rows of session keys in tables that stand one after the other; an earlier table goes first.

    Args:
        parts: Index of each table.
    """

    def __init__(self, parts: Sequence[KeyIndex]) -> None:
        self.parts = parts

    def rows(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Row of each key; -1 for an unknown one."""
        found, begin = np.full(len(keys), -1, dtype=np.int64), 0
        for part in self.parts:
            here = part.rows(keys)
            found = np.where((found < 0) & (here >= 0), here + begin, found)
            begin += len(part.low)
        return found


class SessionViews:
    """Provides the views of sessions by their keys, as the view cache did in training.

    Args:
        spec: The run's views.
        titles: Title embeddings and their mask, or their table.
        stored: Keys and views of known sessions (`pack_views`); None where the views come from titles.
        device: Device of the model.
        further: Keys and views of further sessions, in the same form.

    Shapes:
        - titles: ``(V, d_t)``, mask: ``(V,)`` bool

    Raises:
        InputError: If the tensors do not fit each other, or are not finite.
    """

    def __init__(
        self,
        spec: ServedViewsSpec,
        titles: tuple[Tensor, Tensor] | TitleTable,
        stored: dict[str, Tensor] | None,
        device: torch.device | str = "cpu",
        further: dict[str, Tensor] | None = None,
    ) -> None:
        self.spec, self.device, self.index = spec, device, None
        if not isinstance(titles, TitleTable):
            titles = TitleTable(titles[0].float(), titles[1].bool())
        self.stored, table = stored, titles
        made: ViewTable
        if stored is None:
            made = TitleViews(table, spec.names)
        else:
            made = _stored(spec, table, stored if further is None else _joined(stored, further))
            parts = [one["keys"].numpy() for one in (stored, further) if one is not None]
            self.index = SeveralIndexes([KeyIndex(keys) for keys in parts])
            if spec.fallback == "titles":
                made.fallback = ScaledTitleViews(table, spec.names, torch.tensor(spec.norms))
        self.made_for_all = (
            stored is None or spec.fallback == "titles"
        )  # also for sessions without a known view
        # (n + 1,) on the host, where a request asks: whether a row has a view that the model reads.
        used = torch.tensor([name in spec.used for name in spec.names])
        self.known = (made.mask & used).any(1).numpy() if isinstance(made, StoredViews) else None
        self.table = (made if spec.used == spec.names else UsedViews(made, spec.used)).to(device)

    def with_further(self, keys: Sequence[bytes], views: dict[str, Tensor]) -> SessionViews:
        """The bundle's views and those of further sessions, in place of earlier further ones.

        Args:
            keys: Keys of ``n`` distinct sessions.
            views: ``ids`` and ``weights``, or ``vectors``, one row per session.

        Raises:
            InputError: If the views come from titles alone, or the rows do not fit those of the bundle.
        """
        if self.stored is None:
            raise InputError("these views come from titles alone, so no session has views of its own")
        ids = views.get("ids")
        if ids is not None and ids.numel() and int(ids.max()) >= len(self.table.table.mask):
            raise InputError("the views name items beyond the catalogue", value=int(ids.max()))
        rows = {name: one.to(self.stored[name].dtype) for name, one in views.items() if name in self.stored}
        return SessionViews(self.spec, self.table.table, self.stored, self.device, pack_views(keys, rows))

    @property
    def text_dim(self) -> int:
        """``d_t``."""
        return self.table.text_dim

    def __call__(self, batch: SessionBatch, keys: Sequence[bytes]) -> tuple[SessionBatch, list[ViewState]]:
        """Add the views to a batch that has none.

        Args:
            batch: Sessions; their `example_index` is not read.
            keys: Content key of every session (`Catalogue.session_key`).

        Returns:
            The batch, without views if no session has any, and where each session's views come from.
        """
        known = [False] * len(keys)
        if self.index is not None and self.known is not None:
            rows = self.index.rows(keys) + 1  # row 0 is that of unknown sessions
            known = self.known[rows].tolist()
            if not (self.made_for_all or any(known)):
                return batch, ["absent"] * len(keys)
            batch = batch._replace(example_index=torch.from_numpy(rows).to(batch.item_ids.device))
        views, mask = self.table(batch)
        batch = batch._replace(views=views, view_mask=mask)
        if not self.made_for_all:
            return batch, ["known" if own else "absent" for own in known]
        other: ViewState = "known" if self.index is None else "titles"
        return batch, [
            "known" if own else other if some else "absent"
            for own, some in zip(known, mask.any(1).tolist(), strict=True)
        ]


def pack_views(keys: Sequence[bytes], views: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sort known views by their keys, and add a first row for unknown sessions.

    Args:
        keys: Keys of ``n`` distinct sessions.
        views: ``ids`` and ``weights``, or ``vectors``, one row per session.

    Returns:
        ``keys (n, 2)`` and the views, ``(n + 1, …)``.
    """
    if not keys:
        return {
            "keys": torch.zeros(0, 2, dtype=torch.long),
            **{name: rows.new_zeros(1, *rows.shape[1:]) for name, rows in views.items()},
        }
    packed, order = KeyIndex.pack(keys)
    rows = {
        name: torch.cat((one.new_zeros(1, *one.shape[1:]), one[torch.from_numpy(order)]))
        for name, one in views.items()
    }
    return {"keys": torch.from_numpy(packed), **rows}


def _joined(stored: dict[str, Tensor], further: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two tables of `pack_views`, one after the other, with one row for unknown sessions."""
    if set(stored) != set(further):
        raise InputError("the further views have other parts", value=sorted(further))
    if any(stored[name].shape[1:] != further[name].shape[1:] for name in stored):
        raise InputError("the further views have another shape")
    return {
        name: torch.cat((rows, further[name] if name == "keys" else further[name][1:]))
        for name, rows in stored.items()
    }


def _stored(spec: ServedViewsSpec, table: TitleTable, stored: dict[str, Tensor]) -> StoredViews:
    num_items, text_dim = len(table.mask) - 1, table.titles.size(1)
    names, views, count = set(stored), len(spec.names), len(stored.get("keys", ())) + 1
    if names == {"keys", "vectors"} and stored["vectors"].shape == (count, views, text_dim):
        vectors = stored["vectors"]
        return DenseViews(table, spec.names, vectors, vectors.any(-1))
    ids, weights = stored.get("ids"), stored.get("weights")
    if names != {"keys", "ids", "weights"} or ids is None or weights is None or ids.ndim != 3:
        raise InputError("the known views lack their keys, ids or weights")
    if ids.shape != weights.shape or ids.shape[:2] != (count, views) or stored["keys"].shape[1:] != (2,):
        raise InputError("the known views have another shape", value=tuple(ids.shape))
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= num_items:
        raise InputError(f"the known views name items beyond the catalogue's {num_items}")
    return LocalisedViews(table, spec.names, ids, weights, (ids > 0).any(-1))
