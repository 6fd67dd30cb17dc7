"""Filters that drop rare items and short sessions until none is left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .clicks import ClickTable, Mask, tally
from .rules import KCore


def k_core(clicks: ClickTable, rules: KCore) -> ClickTable:
    """Drop rare items and short sessions alternately, until nothing changes.

    Args:
        clicks: Clicks with the session as key.
        rules: Thresholds.

    Returns:
        The remaining rows, in their order.
    """
    kept = _core(clicks, rules, np.ones(len(clicks), dtype=np.bool_))
    return clicks if kept.all() else clicks.take(kept)


def k_core_on_train(clicks: ClickTable, in_training: Mask, rules: KCore) -> ClickTable:
    """Compute the core of the training sessions only and restrict the other splits to its items.

    Args:
        clicks: Clicks with the session as key.
        in_training: Whether a session is in training.
        rules: Thresholds; the minimum length is also applied once to the other splits' sessions.

    Returns:
        The remaining rows, in their order.

    Shapes:
        - in_training: ``(K,)``
    """
    training = in_training[clicks.key]  # (T,)
    kept = _core(clicks, rules, training.copy())
    known = tally(clicks.item, len(clicks.items), kept) > 0  # (I,)
    kept |= ~training & known[clicks.item]
    long = tally(clicks.key, len(clicks.keys), kept) >= rules.min_session_length  # (K,)
    kept &= training | long[clicks.key]
    return clicks if kept.all() else clicks.take(kept)


def drop_unseen(clicks: ClickTable, in_training: Mask) -> ClickTable:
    """Drop clicks of validation and test on items that do not occur in training.

    Shapes:
        - in_training: ``(K,)``
    """
    training = in_training[clicks.key]  # (T,)
    seen = tally(clicks.item, len(clicks.items), training) > 0  # (I,)
    kept = training | seen[clicks.item]
    return clicks if kept.all() else clicks.take(kept)


def _core(clicks: ClickTable, rules: KCore, kept: Mask) -> Mask:
    """Rows of the core among the rows `kept`, which is changed."""
    left = int(kept.sum())
    while True:
        before = left
        for numbers, ids, least in (
            (clicks.item, clicks.items, rules.min_item_clicks),
            (clicks.key, clicks.keys, rules.min_session_length),
        ):
            if least > 1:
                enough: npt.NDArray[np.bool_] = tally(numbers, len(ids), kept) >= least
                kept &= enough[numbers]
        left = int(kept.sum())
        if left == before:
            return kept
