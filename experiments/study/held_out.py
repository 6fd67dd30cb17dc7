"""A data set twice, as tables: with all items, and without the clicks on some items before the test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
import yaml

from experiments.study.data import data_module
from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.store import ViewStore

SPLITS: tuple[Split, ...] = ("train", "validate", "test")


class HeldOut(NamedTuple):
    """Data of an experiment with cold items.

    Args:
        whole: YAML of the data module with all items.
        warm: YAML of the data module that has never seen the cold items.
        cold: Ids of the cold items.
        stores: View stores with the titles' embeddings, of `whole` and of `warm`.
    """

    whole: Path
    warm: Path
    cold: frozenset[str]
    stores: tuple[Path, Path]


def hold_out(source: ExampleSource, share: float, seed: int, folder: Path, max_length: int) -> HeldOut:
    """Write a data set with and without some items; what exists already is left as it is.

    Args:
        source: Prepared data module.
        share: Share of the items that are cold, drawn with equal probabilities.
        seed: Seed of the draw.
        folder: Folder of the tables and view stores.
        max_length: Length of the longest prefix.
    """
    catalogue = source.catalogue
    drawn = np.random.default_rng(seed).permutation(catalogue.num_items)[: round(share * catalogue.num_items)]
    cold = frozenset(catalogue.item_ids[place] for place in drawn)
    items = pl.DataFrame({"item_id": catalogue.item_ids, "title": catalogue.titles})
    events = _events(source)
    is_cold = pl.col("item_id").is_in(list(cold))
    files, stores = [], []
    for name, without in (("whole", pl.lit(False)), ("warm", is_cold)):
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        config = home / "data.yaml"
        if not config.exists():
            events.filter(~without).write_parquet(home / "events.parquet")
            items.filter(~without).write_parquet(home / "items.parquet")
            config.write_text(yaml.safe_dump(_config(home, max_length)))
        with ViewStore(home / "views") as store:
            source = cast(ExampleSource, data_module(str(config), None))
            infer_views(source, store, encoder=SentenceEncoder(), view_source="titles", progress=False)
        files.append(config)
        stores.append(home / "views")
    return HeldOut(files[0], files[1], cold, (stores[0], stores[1]))


def _events(source: ExampleSource) -> pl.DataFrame:
    """One row per click of the sessions with examples."""
    ids = np.array(source.catalogue.item_ids, dtype=object)
    parts = []
    for split in SPLITS:
        for number, clicks in enumerate(source.examples(split).sessions()):
            parts.append(
                pl.DataFrame({
                    "session_id": [f"{split}-{number}"] * len(clicks),
                    "item_id": ids[clicks - 1].tolist(),
                    "timestamp": np.arange(len(clicks), dtype=np.int64),
                    "split": [split] * len(clicks),
                })
            )  # fmt: skip
    return pl.concat(parts)


def _config(home: Path, max_length: int) -> dict[str, object]:
    return {
        "class_path": "SessionDataModule",
        "init_args": {
            "data_dir": str(home),
            "events": "events.parquet",
            "items": "items.parquet",
            "sessions": {"by": "column"},
            "kcore": {"over": "all", "unclicked_items": "keep"},
            "split": {"by": "column"},
            "max_length": max_length,
        },
    }
