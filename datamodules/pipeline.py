"""Pipeline from clicks and titles to the examples of every split, in the order that avoids leakage.

sessions -> filter (on everything) -> split -> filter (on training) -> catalogue -> sample
-> prefixes inside each split
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, Split

from .dataset import expand
from .filtering import drop_unseen, k_core, k_core_on_train
from .rules import ExampleMode, KCore, Sessions, SplitBy
from .sessionize import handle_copies, sessionize
from .splits import sample_sessions, split_sessions
from .tables import warn_missing


@dataclass(frozen=True)
class Prepared:
    """Prepared data: the catalogue, and the examples of every split with prefixes of full length."""

    catalogue: Catalogue
    splits: dict[Split, Examples]
    warnings: tuple[str, ...] = ()  # of the preparation, repeated in every run


@dataclass(frozen=True)
class Recipe:
    """Every choice that affects the examples; with the files' content it forms the cache key."""

    sessions: Sessions
    kcore: KCore
    split: SplitBy
    missing_titles: Literal["error", "empty"]
    train_examples: ExampleMode
    eval_examples: ExampleMode
    seed: int


def build(
    events: pl.DataFrame,
    items: pl.DataFrame | None,
    recipe: Recipe,
    *,
    predict: pl.DataFrame | None = None,
    path: str | Path | None = None,
) -> Prepared:
    """Run the whole pipeline.

    Args:
        events: Table with ``key, item_id, timestamp`` and optionally ``split``.
        items: Table with ``item_id, title``; None for data without titles.
        recipe: Choices of the pipeline.
        predict: Clicks of the sessions to recommend for; by default the whole test sessions.
        path: Source of the data for error messages.

    Raises:
        InputError: If no training example is left (the message names the remaining sessions and clicks), or
            an error of `split_sessions`.
    """
    clicks = sessionize(handle_copies(events, recipe.sessions), recipe.sessions)
    seen = f"{clicks['session_id'].n_unique()} sessions of {clicks.height} clicks"
    if recipe.kcore.over == "all":
        clicks = k_core(
            clicks,
            min_item_clicks=recipe.kcore.min_item_clicks,
            min_session_length=recipe.kcore.min_session_length,
        )
    clicks = split_sessions(clicks, recipe.split, recipe.seed, path)
    if recipe.kcore.over == "train":
        clicks = k_core_on_train(clicks, recipe.kcore)
    if recipe.split.unseen_items == "drop":
        clicks = drop_unseen(clicks)
    wanted = clicks["item_id"].unique()
    if items is not None and recipe.kcore.unclicked_items == "keep":
        never = items.filter(~pl.col("item_id").is_in(events["item_id"].unique().implode()))
        wanted = pl.concat([wanted, never["item_id"]])
    catalogue = make_catalogue(wanted, items, recipe.missing_titles, path)
    clicks = sample_sessions(number_items(clicks, catalogue), recipe.split.sample, recipe.seed)
    part = {name: clicks.filter(pl.col("part") == name) for name in ("train", "validate", "test")}
    splits: dict[Split, Examples] = {
        "train": _examples(part["train"], recipe.train_examples),
        "validate": _examples(part["validate"], recipe.eval_examples),
        "test": _examples(part["test"], recipe.eval_examples),
        "predict": _examples(
            part["test"] if predict is None else _new_sessions(predict, recipe, catalogue), "predict"
        ),
    }
    if len(splits["train"]) == 0:
        left = part["train"]
        raise InputError(
            f"no training example: of {seen}, {left['session_id'].n_unique()} sessions of {left.height} "
            "clicks are left for training, and none has two clicks",
            path=path,
            hint="Check sessions, kcore and split",
        )
    return Prepared(catalogue, splits)


def make_catalogue(
    wanted: pl.Series,
    items: pl.DataFrame | None,
    missing_titles: Literal["error", "empty"] = "empty",
    path: str | Path | None = None,
) -> Catalogue:
    """Catalogue of the wanted items, in the order of the items table; items without a row come last, sorted.

    The order of clicks does not affect the numbers of items.
    """
    if items is None:
        ids = sorted(wanted.to_list())
        return Catalogue(tuple(ids), ("",) * len(ids))
    titled = items.filter(pl.col("item_id").is_in(wanted.implode()))
    missing = sorted(set(wanted.to_list()) - set(titled["item_id"].to_list()))
    warn_missing(missing, items["item_id"], error=missing_titles == "error", path=path)
    if path is not None and not any(title.strip() for title in titled["title"]):
        warnings.warn(
            f"{path}: no clicked item has a title, so there is nothing for titles and LLM views to use",
            UserWarning,
            stacklevel=2,
        )
    return Catalogue(
        (*titled["item_id"].to_list(), *missing), (*titled["title"].to_list(), *[""] * len(missing))
    )


def number_items(clicks: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add the column ``item``: the number of ``item_id`` in the catalogue, null for an unknown item."""
    numbers = pl.DataFrame(
        {"item_id": catalogue.item_ids, "item": range(1, catalogue.num_items + 1)},
        schema={"item_id": pl.String, "item": pl.Int64},
    )
    return clicks.join(numbers, on="item_id", how="left", maintain_order="left")


def _new_sessions(events: pl.DataFrame, recipe: Recipe, catalogue: Catalogue) -> pl.DataFrame:
    events = handle_copies(events, recipe.sessions, "rows of the sessions to recommend for")
    clicks = number_items(sessionize(events, recipe.sessions), catalogue)
    known = clicks.filter(pl.col("item").is_not_null())
    if known.height < clicks.height:
        lost = sorted(set(clicks["session_id"].to_list()) - set(known["session_id"].to_list()))
        warnings.warn(
            f"{clicks.height - known.height} clicks of the sessions to recommend for are on items outside "
            f"the catalogue and were left out; {len(lost)} sessions have no other click and get none"
            + _named(lost),
            UserWarning,
            stacklevel=2,
        )
    return known


def _examples(clicks: pl.DataFrame, mode: Literal["prefixes", "last", "predict"]) -> Examples:
    sessions = clicks.group_by("session_id", maintain_order=True).len("length")
    return expand(
        clicks["item"].to_numpy().astype(np.int64),
        sessions["length"].to_numpy().astype(np.int64),
        sessions["session_id"].to_list(),
        mode,
    )


def _named(names: Sequence[str]) -> str:
    return f": {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""
