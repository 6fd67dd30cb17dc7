"""New items of a bundle: they start from their titles, and everything else stays as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite
from llm4sbr.nn.carry_over import carried_state
from llm4sbr.serving.bundle import Content
from llm4sbr.serving.manifest import Manifest
from llm4sbr.serving.model import build_model

if TYPE_CHECKING:
    import polars as pl

Titles = tuple[Tensor, Tensor]  # embeddings (V, d_t), and which items have one (V,)


def new_items(catalogue: Catalogue, table: Mapping[str, str] | pl.DataFrame) -> tuple[Catalogue, list[int]]:
    """The items of a table that a catalogue lacks, and their rows in the table.

    Args:
        catalogue: Present items.
        table: Titles by item id, or a table with the columns ``item_id`` and ``title``.

    Raises:
        InputError: If a column is missing, an id is duplicated, missing or known with another title, or no
            item is left.

    Warns:
        UserWarning: If items are left out because the catalogue has them, or because they have no title.
    """
    ids, titles = _columns(table)
    given = Catalogue(ids, titles)  # refuses duplicates
    rows, untitled, present = [], [], 0
    for row, (item, title) in enumerate(zip(ids, titles, strict=True)):
        known = catalogue.index.get(item)
        if known is not None and catalogue.title(known) != title:
            raise InputError(
                f"item {item!r} is in the catalogue with another title, {catalogue.title(known)!r}",
                row=str(row + 1),
                value=title,
                hint="Leave it out here; `llm4sbr update` trains on with corrected titles",
            )
        if known is not None:
            present += 1
        elif not title.strip():
            untitled.append(item)
        else:
            rows.append(row)
    if present:
        warnings.warn(f"{present} items are in the catalogue already", UserWarning, stacklevel=3)
    if untitled:
        warnings.warn(
            f"{len(untitled)} new items have no title and are left out, such as {untitled[0]!r}",
            UserWarning,
            stacklevel=3,
        )
    if not rows:
        raise InputError("the table has no new item with a title")
    return Catalogue(tuple(given.item_ids[n] for n in rows), tuple(given.titles[n] for n in rows)), rows


def with_items(
    manifest: Manifest,
    content: Content,
    table: Mapping[str, str] | pl.DataFrame,
    embeddings: Any,
    *,
    known: Any = None,
    encoder: str | None = None,
    classes: Iterable[type] = (),
) -> tuple[Manifest, Content]:
    """Add items without clicks to the content of a bundle; see `Recommender.with_items`.

    Args:
        manifest: Manifest of the bundle.
        content: Content of the bundle.
        table: Titles by item id, or a table with the columns ``item_id`` and ``title``.
        embeddings: Title embeddings of the rows of `table`.
        known: Title embeddings of the bundle's items, for a bundle without any.
        encoder: Fingerprint of the encoder of the embeddings, to be compared with the bundle's.
        classes: Classes that may be built besides registered ones.

    Shapes:
        - embeddings: ``(n, d_t)``, one row per row of the table; known: ``(V, d_t)``
    """
    expected = manifest.encoder.get("fingerprint")
    if encoder is not None and expected is not None and encoder != expected:
        raise InputError(
            f"the embeddings are of another encoder than the bundle's, {manifest.encoder.get('name')}",
            value=encoder,
            hint="Titles of different encoders cannot be compared",
        )
    old = content.catalogue
    titles, titled = _known(content, known)
    added, rows = new_items(old, table)
    fresh = _embeddings(embeddings, len(table), titles.size(1), "rows of the table")[rows]
    blank = (~fresh.any(1)).nonzero().flatten().tolist()
    if blank:
        raise InputError("the embedding of a title is zero", value=added.title(blank[0] + 1))
    grown = Catalogue(old.item_ids + added.item_ids, old.titles + added.titles)
    both = torch.cat((titles, fresh)), torch.cat((titled, torch.ones(added.num_items, dtype=torch.bool)))
    change = replace(CatalogueChange.grown(old.num_items, added.num_items), titles=both[0], titled=both[1])
    description = _resized(manifest.model, grown.num_items)
    weights = carried_state(build_model(description, classes), content.weights, change)
    history = [*manifest.origin.get("added", []), {"items": added.num_items, "bundle": manifest.sha256}]
    return (
        replace(
            manifest,
            model=description,
            num_items=grown.num_items,
            catalogue=grown.fingerprint,
            origin={**manifest.origin, "added": history},
            files={},
            sha256="",
        ),
        Content(
            weights,
            grown,
            None if content.titles is None else both,
            content.views,
        ),
    )


def _columns(table: Mapping[str, str] | pl.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and titles of a table."""
    if isinstance(table, Mapping):
        ids, titles = list(table), list(table.values())
    else:
        lacking = [name for name in ("item_id", "title") if name not in table.columns]
        if lacking:
            raise InputError("a column is missing", value=lacking[0], hint=f"There are {table.columns}")
        ids, titles = table["item_id"].to_list(), table["title"].to_list()
    for row, (item, title) in enumerate(zip(ids, titles, strict=True), start=1):
        if not _is_text(item) or not item:
            raise InputError("an item id is a text that is not empty", row=str(row), value=item)
        if title is not None and not _is_text(title):
            raise InputError("a title is a text", row=str(row), value=title)
    return tuple(ids), tuple(title or "" for title in titles)


def _is_text(value: object) -> bool:
    """Whether a value is a string that UTF-8 can hold; a lone surrogate is none."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode("utf-8") == value


def _known(content: Content, given: Any) -> Titles:
    """Title embeddings of the bundle's own items."""
    count = content.catalogue.num_items
    if content.titles is not None:
        if given is not None:
            raise InputError("the bundle has the title embeddings of its items; give those of new ones only")
        return content.titles
    if given is None:
        raise InputError(
            "this bundle has no title embeddings, so nothing says which items a new one is like",
            hint="Give the title embeddings of its items, too: `known`, or --encoder on the command line",
        )
    known = _embeddings(given, count, None, "items of the bundle")
    return known, known.any(1)


def _embeddings(given: Any, rows: int, size: int | None, of: str) -> Tensor:
    """Embeddings as unit rows, ``(rows, d_t)`` float32."""
    found = given if isinstance(given, Tensor) else torch.from_numpy(np.asarray(given, dtype=np.float32))
    found = found.detach().cpu().float()
    if found.ndim != 2 or len(found) != rows or (size is not None and found.size(1) != size):
        raise InputError(
            f"the title embeddings must be ({rows}, {'d_t' if size is None else size}), one for each of the "
            f"{rows} {of}",
            value=tuple(found.shape),
        )
    require_finite(found, "the title embeddings")
    return normalize(found, dim=-1)


def _resized(description: Mapping[str, Any], num_items: int) -> dict[str, Any]:
    """Description of the same model for another number of items."""
    made: dict[str, Any] = copy.deepcopy(dict(description))
    backbone = made["init_args"].get("backbone")
    arguments = backbone.get("init_args") if isinstance(backbone, dict) else None
    if not isinstance(arguments, dict) or "num_items" not in arguments:
        raise InputError(
            "the backbone does not take num_items, so it cannot be built for more items",
            value=backbone.get("class_path") if isinstance(backbone, dict) else backbone,
        )
    arguments["num_items"] = num_items
    return made
