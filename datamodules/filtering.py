"""Filters that drop rare items and short sessions until none is left."""

from __future__ import annotations

import polars as pl

from .rules import KCore


def k_core(clicks: pl.DataFrame, *, min_item_clicks: int = 1, min_session_length: int = 1) -> pl.DataFrame:
    """Drop rare items and short sessions alternately, until nothing changes.

    Args:
        clicks: Table with ``session_id, item_id`` and any other columns.
        min_item_clicks: Minimum number of clicks of an item.
        min_session_length: Minimum number of clicks of a session.

    Returns:
        The remaining rows, in their order.

    >>> k_core(pl.DataFrame({"session_id": [1, 1, 2], "item_id": [7, 7, 7]}), min_session_length=2).height
    2
    """
    while True:
        before = clicks.height
        if min_item_clicks > 1:
            clicks = clicks.filter(pl.len().over("item_id") >= min_item_clicks)
        if min_session_length > 1:
            clicks = clicks.filter(pl.len().over("session_id") >= min_session_length)
        if clicks.height == before:
            return clicks


def k_core_on_train(clicks: pl.DataFrame, rules: KCore) -> pl.DataFrame:
    """Compute the core of the training sessions only and restrict the other splits to its items.

    Args:
        clicks: Table with ``session_id, item_id, part``.
        rules: Thresholds; the minimum length is also applied once to the other splits' sessions.

    Returns:
        The remaining rows, in their order.
    """
    in_training = pl.col("part") == "train"
    core = k_core(
        clicks.with_row_index("_row").filter(in_training),
        min_item_clicks=rules.min_item_clicks,
        min_session_length=rules.min_session_length,
    )
    rows = clicks.with_row_index("_row")
    kept_training = pl.col("_row").is_in(core["_row"].implode())
    known = pl.col("item_id").is_in(core["item_id"].unique().implode())
    rows = rows.filter(pl.when(in_training).then(kept_training).otherwise(known)).drop("_row")
    return rows.filter(in_training | (pl.len().over("session_id") >= rules.min_session_length))


def drop_unseen(clicks: pl.DataFrame) -> pl.DataFrame:
    """Drop clicks of validation and test on items that do not occur in training."""
    seen = clicks.filter(pl.col("part") == "train")["item_id"].unique()
    return clicks.filter((pl.col("part") == "train") | pl.col("item_id").is_in(seen.implode()))
