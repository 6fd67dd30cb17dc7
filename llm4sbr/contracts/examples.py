"""Examples of one split as flat arrays; an example is a prefix of a session and the next click."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.mapped import from_path, to_path

Split = Literal["train", "validate", "test", "predict"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test", "predict")
IntArray = npt.NDArray[np.int64]  # or int32, see `Examples`
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Examples:
    """``E`` examples over ``T`` clicks of ``S`` sessions; nothing is copied per example.

    Example ``e`` has the prefix ``clicks[start[e]:end[e]]`` and belongs to session ``session[e]``. The arrays
    are int32 where their numbers fit, so convert them before you multiply. They may be mapped files
    (`llm4sbr.contracts.mapped`); those are pickled as their paths, so that processes share their pages.

    Shapes:
        - clicks: ``(T,)`` items 1..V, sessions one after the other
        - start, end, target, session: ``(E,)``; ``target`` is 0 if it is unknown
        - session_ids: ``(S,)`` the shop's ids, a tuple or a sequence that is read on demand
        - first_index: ``example_index`` of example 0; unique over the splits of one data module
    """

    clicks: IntArray
    start: IntArray
    end: IntArray
    target: IntArray
    session: IntArray
    session_ids: Sequence[str]
    first_index: int = 0

    def __len__(self) -> int:
        return len(self.start)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: to_path(getattr(self, field.name)) for field in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, from_path(value))

    def prefix(self, example: int) -> tuple[int, ...]:
        """Items of one example's prefix, oldest first."""
        return tuple(self.clicks[self.start[example] : self.end[example]].tolist())

    def prefixes(self) -> list[tuple[int, ...]]:
        """Every prefix, in example order."""
        return list(self.each_prefix())

    def each_prefix(self) -> Iterator[tuple[int, ...]]:
        """Every prefix, in example order, of a block of examples at a time."""
        for at in range(0, len(self), _AT_ONCE):
            start, end = (bounds[at : at + _AT_ONCE] for bounds in (self.start, self.end))
            first = int(start.min())
            clicks = self.clicks[first : int(end.max())].tolist()
            for a, b in zip(start.tolist(), end.tolist(), strict=True):
                yield tuple(clicks[a - first : b - first])

    def sessions(self) -> list[IntArray]:
        """Clicks of each session with examples, including targets, without clicks before `start`."""
        if len(self) == 0:
            return []
        number, where = np.unique(self.session, return_inverse=True)  # (S',), (E,)
        first = np.full(len(number), len(self.clicks), dtype=np.int64)
        last = np.zeros(len(number), dtype=np.int64)
        np.minimum.at(first, where, self.start)
        np.maximum.at(last, where, self.end + (self.target > 0))
        return [self.clicks[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]

    def session_id(self, example: int) -> str:
        """The shop's id of the session that an example belongs to."""
        return self.session_ids[int(self.session[example])]


class ExampleSource(Protocol):
    """Interface of a data module that stage 1 and the view cache need."""

    @property
    def catalogue(self) -> Catalogue:
        """The items and their titles."""
        ...

    def examples(self, split: Split) -> Examples:
        """The examples of one split (empty where the split has none)."""
        ...
