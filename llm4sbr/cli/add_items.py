"""``llm4sbr add-items``: a bundle with new items, which start from their titles."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules.rules import Columns
from llm4sbr.datamodules.tables import read_items
from llm4sbr.runs.trainer_cli import say
from llm4sbr.serving import Recommender
from llm4sbr.serving.manifest import Manifest
from llm4sbr.views.encoder import SentenceEncoder

_COLUMNS = Columns()


def add_items(
    bundle: str,
    items: str,
    out: str = "bundle-grown",
    encoder: str | None = None,
    columns: Columns = _COLUMNS,
    device: str = "auto",
) -> None:
    """Add items that nobody has clicked yet to a bundle, without training.

    New items start from their titles, so that they can be recommended, and clicked; the scores of the others
    stay. Items that the bundle has already are left out, and items without a title.

    Args:
        bundle: Folder of `llm4sbr export`.
        items: Table of items: CSV, TSV or Parquet, optionally gzipped.
        out: Folder of the new bundle. An existing bundle is replaced when the new one is complete.
        encoder: Text encoder: folder, installed weights package or hub name; by default the one that the
            bundle names. A bundle of a bare model has no titles' embeddings; name one for it.
        columns: Column names of the table.
        device: Device of the encoder.

    Raises:
        InputError: The bundle or the table cannot be read, the encoder is not the bundle's, an item is in the
            bundle with another title, or no item is new.
    """
    recommender = Recommender.load(bundle)
    assert recommender.manifest is not None
    table = read_items(items, columns)
    texts = SentenceEncoder(encoder or _named(recommender.manifest), device=device)
    has_titles = recommender.views is not None
    grown = recommender.with_items(
        table,
        texts.encode(table["title"].to_list()),
        known=None if has_titles else texts.encode(recommender.catalogue.titles),
        encoder=texts.identity.fingerprint,
    )
    grown.save(out)
    say(_told(recommender, grown, table, out))


def _named(manifest: Manifest) -> str:
    """Name of the encoder of a bundle."""
    name = manifest.encoder.get("name")
    if not isinstance(name, str):
        raise InputError(
            "this bundle has no title embeddings, so nothing says which items a new one is like",
            hint="Name a text encoder with --encoder; it embeds the titles of the bundle, too",
        )
    return name


def _told(before: Recommender, grown: Recommender, table: pl.DataFrame, out: str | Path) -> str:
    added = grown.catalogue.num_items - before.catalogue.num_items
    return (
        f"{added:,} of {len(table):,} items added to {before.catalogue.num_items:,}: {out}. Try it with\n"
        f"  llm4sbr recommend {out} --session {grown.catalogue.item_ids[-1]}"
    )
