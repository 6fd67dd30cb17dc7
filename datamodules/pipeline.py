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
import numpy.typing as npt
import polars as pl

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, Split

from .clicks import ClickTable, places, texts_of
from .dataset import expand
from .filtering import drop_unseen, k_core, k_core_on_train
from .rules import ExampleMode, KCore, Sessions, SplitBy
from .sessionize import sessionize
from .splits import TEST, TRAIN, VALIDATE, sample_sessions, split_sessions
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
    events: ClickTable,
    items: pl.DataFrame | None,
    recipe: Recipe,
    *,
    predict: ClickTable | None = None,
    path: str | Path | None = None,
) -> Prepared:
    """Run the whole pipeline.

    Args:
        events: Clicks of sessions or users, in any order.
        items: Table with ``item_id, title``; None for data without titles.
        recipe: Choices of the pipeline.
        predict: Clicks of the sessions to recommend for; by default the whole test sessions.
        path: Source of the data for error messages.

    Raises:
        InputError: If no training example is left (the message names the remaining sessions and clicks), or
            an error of `split_sessions`.
    """
    clicked = events.items
    clicks = sessionize(events, recipe.sessions)
    del events
    seen = f"{len(clicks.starts())} sessions of {len(clicks)} clicks"
    if recipe.kcore.over == "all":
        clicks = k_core(clicks, recipe.kcore)
    parts = split_sessions(clicks, recipe.split, recipe.seed, path)
    if recipe.kcore.over == "train":
        clicks = k_core_on_train(clicks, parts == TRAIN, recipe.kcore)
    if recipe.split.unseen_items == "drop":
        clicks = drop_unseen(clicks, parts == TRAIN)
    wanted = clicked.filter(clicks.clicked())
    if items is not None and recipe.kcore.unclicked_items == "keep":
        never = items.filter(~pl.col("item_id").is_in(clicked.implode()))
        wanted = pl.concat([wanted, never["item_id"].alias(wanted.name)])
    catalogue = make_catalogue(wanted, items, recipe.missing_titles, path)
    clicks = sample_sessions(clicks, parts, recipe.split.sample, recipe.seed)
    number = places(clicked, catalogue.item_ids)  # (I,)
    train, validate, test = (clicks.take(parts[clicks.key] == part) for part in (TRAIN, VALIDATE, TEST))
    del clicks
    splits: dict[Split, Examples] = {
        "train": _examples(train, number, recipe.train_examples),
        "validate": _examples(validate, number, recipe.eval_examples),
        "test": _examples(test, number, recipe.eval_examples),
        "predict": _examples(test, number, "predict")
        if predict is None
        else _new_examples(predict, recipe, catalogue),
    }
    if len(splits["train"]) == 0:
        raise InputError(
            f"no training example: of {seen}, {len(train.starts())} sessions of {len(train)} clicks are left "
            "for training, and none has two clicks",
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


def _new_examples(events: ClickTable, recipe: Recipe, catalogue: Catalogue) -> Examples:
    clicks = sessionize(events, recipe.sessions, "rows of the sessions to recommend for")
    number = places(clicks.items, catalogue.item_ids)
    known = clicks.take(number[clicks.item] > 0)
    if len(known) < len(clicks):
        every, left = (one.keys.gather(one.key[one.starts()]).to_list() for one in (clicks, known))
        lost = sorted(set(every) - set(left))
        warnings.warn(
            f"{len(clicks) - len(known)} clicks of the sessions to recommend for are on items outside "
            f"the catalogue and were left out; {len(lost)} sessions have no other click and get none"
            + _named(lost),
            UserWarning,
            stacklevel=2,
        )
    return _examples(known, number, "predict")


def _examples(
    clicks: ClickTable, number: npt.NDArray[np.int32], mode: Literal["prefixes", "last", "predict"]
) -> Examples:
    starts = clicks.starts()
    lengths = np.diff(np.append(starts, len(clicks)))
    return expand(number[clicks.item], lengths, texts_of(clicks.keys.gather(clicks.key[starts])), mode)


def _named(names: Sequence[str]) -> str:
    return f": {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""
