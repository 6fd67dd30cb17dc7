"""Rare items and short sessions, dropped until neither is left."""

from __future__ import annotations

import polars as pl

from .rules import KCore


def k_core(clicks: pl.DataFrame, *, min_item_clicks: int = 1, min_session_length: int = 1) -> pl.DataFrame:
    """Drop items with too few clicks and sessions that are too short, in turn, to the fixed point.

    Args:
        clicks: ``session_id, item_id`` and more.
        min_item_clicks: Least clicks of an item.
        min_session_length: Least clicks of a session.

    Returns:
        The rows that stay, in order.

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
    """Find the core of the training sessions alone and hold the other splits to its items.

    Args:
        clicks: ``session_id, item_id, part``.
        rules: Thresholds; the length applies to the other splits' sessions too, once.

    Returns:
        The rows that stay, in order.
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
    """Drop clicks of validation and test on items that training never saw."""
    seen = clicks.filter(pl.col("part") == "train")["item_id"].unique()
    return clicks.filter((pl.col("part") == "train") | pl.col("item_id").is_in(seen.implode()))
