"""Budget of LLM calls: choose the sessions for which a trained bare model is most uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.runs.uncertainty import session_entropies
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.training.wrapper import LLM4SBRWrapper
from llm4sbr.views.inference.progress import Meter
from llm4sbr.views.inference.sessions import session_keys


def least_certain_first(entropies: Mapping[bytes, float]) -> list[bytes]:
    """Sort session keys by decreasing entropy, and ties by key: the order of the data has no effect.

    >>> least_certain_first({b"c": 1.0, b"a": 1.0, b"b": 2.0})
    [b'b', b'a', b'c']
    """
    return sorted(entropies, key=lambda key: (-entropies[key], key))


def in_proportion(orders: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Merge several orders into one: every prefix of the result holds the same share of each order.

    A key that is in several orders keeps its first position.

    >>> in_proportion([[b"a", b"b", b"c", b"d"], [b"x", b"y"]])
    [b'a', b'x', b'b', b'c', b'y', b'd']
    """
    placed = [
        ((rank + 0.5) / len(order), number, key)
        for number, order in enumerate(orders)
        for rank, key in enumerate(order)
    ]
    return list(dict.fromkeys(key for _, _, key in sorted(placed)))


def how_many(budget: int | float, sessions: int) -> int:
    """Return the number of sessions that a budget covers.

    Args:
        budget: A count (``int``) or a share from 0.0 to 1.0 (``float``); the type decides, as in
            scikit-learn.
        sessions: Number of distinct sessions.

    Raises:
        InputError: The budget is negative, or a share above 1.

    >>> how_many(0.1, 30), how_many(1.0, 30), how_many(1, 30), how_many(5000, 30)
    (3, 30, 1, 30)
    """
    if isinstance(budget, float) and not 0 <= budget <= 1:  # written so that NaN is refused, too
        raise InputError(
            "a budget with a decimal point is a share of the sessions, from 0.0 to 1.0",
            value=budget,
            hint="A count of sessions is a whole number, such as 5000",
        )
    if budget < 0:
        raise InputError("a budget must not be negative", value=budget)
    return round(budget * sessions) if isinstance(budget, float) else min(budget, sessions)


def order_of_need(
    source: ExampleSource, model: SBRModule, splits: Sequence[Split], *, progress: bool = False
) -> list[bytes]:
    """Order all distinct sessions of some splits, most uncertain first, in the same proportion of each split.

    Sessions are ranked within their split. The model has learned the targets of the training sessions, so it
    is overconfident on them: one threshold for all splits would give almost all LLM views to the test
    sessions. With a ranking per split, training and serving see the same mix of LLM views and title views.

    A budget takes a prefix of this order, so a larger budget contains a smaller one. The order depends on the
    content of the sessions, the weights and the splits; it reads no targets. Another device may swap sessions
    whose entropies agree to six digits.

    Args:
        source: Data module.
        model: Bare model, on the device where it runs.
        splits: Splits of the sessions.
        progress: Whether to show a progress bar.
    """
    sessions = [dict(session_keys(source, split)) for split in splits]
    count, orders = sum(map(len, sessions)), []
    with Meter("uncertainty of the bare model", count, shown=progress and count > 0) as meter:
        for part in sessions:
            entropies = session_entropies(model, part, source.catalogue.num_items, advance=meter.advance)
            orders.append(least_certain_first(entropies))
    return in_proportion(orders)


def sessions_within(
    budget: int | float,
    bare_run: str | Path,
    source: ExampleSource,
    splits: Sequence[Split],
    *,
    progress: bool = False,
) -> list[bytes]:
    """Return the keys of the sessions that a budget covers, for the argument `only` of `infer_views`.

    Args:
        budget: A count or a share of the splits' distinct sessions; see `how_many`.
        bare_run: Folder or checkpoint of the bare model's run.
        source: Data module.
        splits: Splits of the sessions.
        progress: Whether to show a progress bar and print the number of chosen sessions.

    Raises:
        InputError: The budget is out of range, or the run is not that of a bare model on the same data.
    """
    how_many(budget, 0)  # reports a budget out of range before any work
    model = bare_model(bare_run, source)
    order = order_of_need(source, model.to(_device()), splits, progress=progress)
    chosen = order[: how_many(budget, len(order))]
    if progress:
        print(
            f"Budget: {len(chosen):,} of {len(order):,} distinct sessions "
            f"({len(chosen) / max(len(order), 1):.1%}), the most uncertain for {bare_run}"
        )
    return chosen


def bare_model(run: str | Path, source: ExampleSource) -> SBRModule:
    """Load the bare model of a run that was trained on these data.

    A wrapped model is refused. Its uncertainty depends on its views, so earlier LLM calls would affect the
    choice of later ones, and a larger budget might not contain a smaller one.

    Raises:
        InputError: The run is that of a wrapped model, has another catalogue, or was trained on other
            sessions.
    """
    # Imported here: Lightning's parser loads slowly, and most runs of stage 1 have no budget.
    from llm4sbr.runs.saved_run import load_run

    saved = load_run(run)
    if isinstance(saved.model, LLM4SBRWrapper):
        raise InputError(
            "this is the run of a wrapped model, whose uncertainty depends on its views",
            path=run,
            hint="Train a bare one: `llm4sbr fit … --model llm4sbr.SBRModule`",
        )
    if not hasattr(saved.data, "examples"):
        raise InputError("the run's data module gives no examples", path=run, value=type(saved.data).__name__)
    other = cast(ExampleSource, saved.data)
    if other.catalogue.fingerprint != source.catalogue.fingerprint:
        raise InputError(
            f"the run has another catalogue ({other.catalogue.fingerprint[:12]})",
            path=run,
            value=source.catalogue.fingerprint[:12],
            hint="Its items or titles differ from this data's: train a bare model on this data",
        )
    # Another split of the same clicks may have trained it on sessions that are test sessions here.
    theirs, ours = other.examples("train"), source.examples("train")
    if not all(
        np.array_equal(getattr(theirs, name), getattr(ours, name)) for name in ("clicks", "start", "end")
    ):
        raise InputError(
            "the run was trained on other sessions of this catalogue",
            path=run,
            hint="Give --data the run's own options, or train a bare model on this data",
        )
    return saved.model


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
