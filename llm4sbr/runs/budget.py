"""Which sessions deserve a call of the LLM: those of which a trained bare model is least certain."""

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
    """Session keys by falling entropy; equals in the order of their keys, never of the data.

    >>> least_certain_first({b"c": 1.0, b"a": 1.0, b"b": 2.0})
    [b'b', b'a', b'c']
    """
    return sorted(entropies, key=lambda key: (-entropies[key], key))


def in_proportion(orders: Sequence[Sequence[bytes]]) -> list[bytes]:
    """One order of several: whatever beginning of it is taken holds the same share of each.

    A key of several orders stands where it comes first.

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
    """How many of some sessions a budget pays for.

    Args:
        budget: A count (whole) or a share (from 0.0 to 1.0), told apart by the point, as scikit-learn does.
        sessions: Distinct sessions there are.

    Raises:
        InputError: The budget is negative, or a share above 1.

    >>> how_many(0.1, 30), how_many(1.0, 30), how_many(1, 30), how_many(5000, 30)
    (3, 30, 1, 30)
    """
    if isinstance(budget, float) and not 0 <= budget <= 1:  # so that NaN is refused, too
        raise InputError(
            "a budget with a point is a share of the sessions, from 0.0 to 1.0",
            value=budget,
            hint="A count of sessions is a whole number, such as 5000",
        )
    if budget < 0:
        raise InputError("a budget is not negative", value=budget)
    return round(budget * sessions) if isinstance(budget, float) else min(budget, sessions)


def order_of_need(
    source: ExampleSource, model: SBRModule, splits: Sequence[Split], *, progress: bool = False
) -> list[bytes]:
    """All distinct sessions of some splits, least certain first, in the same proportion of each split.

    Within each split and not over all: the model has learned the training sessions' answers, so on them it is
    too sure of itself, and one threshold would leave training almost without LLM views and give them to the
    test sessions. Ranked within its split, a session is compared with its like, and training and serving see
    the same mix of LLM and title views.

    A budget takes the beginning of this order, so a larger one contains a smaller one. It follows from the
    sessions' content, the weights and the splits; targets are not read. Arithmetic of another device may
    swap sessions whose entropies agree to six digits.

    Args:
        source: The data module.
        model: The bare model, on the device where it is to run.
        splits: Whose sessions.
        progress: Show a bar.
    """
    sessions = [dict(session_keys(source, split)) for split in splits]
    count, orders = sum(map(len, sessions)), []
    with Meter("how certain the bare model is", count, shown=progress and count > 0) as meter:
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
    """Keys of the sessions that a budget pays for: `only` of `infer_views`.

    Args:
        budget: A count or a share of the splits' distinct sessions; see `how_many`.
        bare_run: Folder or checkpoint of the bare model's run.
        source: The data module.
        splits: Whose sessions.
        progress: Show a bar, and say what was chosen.

    Raises:
        InputError: The budget is out of range, or the run is no bare model's of the same data.
    """
    how_many(budget, 0)  # a budget out of range is told before any work
    model = bare_model(bare_run, source)
    order = order_of_need(source, model.to(_device()), splits, progress=progress)
    chosen = order[: how_many(budget, len(order))]
    if progress:
        print(
            f"Budget: {len(chosen):,} of {len(order):,} distinct sessions "
            f"({len(chosen) / max(len(order), 1):.1%}), those of which {bare_run} is least certain"
        )
    return chosen


def bare_model(run: str | Path, source: ExampleSource) -> SBRModule:
    """The bare model of a run, if it was trained on these data.

    A wrapped model is refused: its certainty follows from the views it was given, so what was asked before
    would decide what is asked next, and a larger budget need not contain a smaller one.

    Raises:
        InputError: The run is a wrapped model's, of another catalogue, or trained on other sessions.
    """
    # Lightning's parser is heavy, and most runs of stage 1 have no budget.
    from llm4sbr.runs.saved_run import load_run

    saved = load_run(run)
    if isinstance(saved.model, LLM4SBRWrapper):
        raise InputError(
            "this is the run of a wrapped model; its certainty depends on the views it was given",
            path=run,
            hint="Train a bare one: `llm4sbr fit … --model llm4sbr.SBRModule`",
        )
    if not hasattr(saved.data, "examples"):
        raise InputError("the run's data module gives no examples", path=run, value=type(saved.data).__name__)
    other = cast(ExampleSource, saved.data)
    if other.catalogue.fingerprint != source.catalogue.fingerprint:
        raise InputError(
            f"the run is of another catalogue ({other.catalogue.fingerprint[:12]})",
            path=run,
            value=source.catalogue.fingerprint[:12],
            hint="Its items or titles differ from this data's: train a bare model on this data",
        )
    # Another cut of the same clicks may have shown it what is a test session here.
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
