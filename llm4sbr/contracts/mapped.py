"""Arrays and texts in mapped files: read when they are used, pickled as paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

_AT_ONCE = 1 << 16


def mapped(path: str | Path) -> npt.NDArray[Any]:
    """Map an ``.npy`` file: pages are read when they are used, and the system may drop them again.

    The mapping is private: what a program writes to the array does not reach the file.
    """
    array: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


@dataclass(frozen=True)
class MappedFile:
    """The pickled form of an array that is a whole mapped file: its absolute path."""

    path: str


def to_path(value: Any) -> Any:
    """`MappedFile` for a whole mapped file, and any other value as it is."""
    # A part of a mapped file has an array as its base.
    whole = isinstance(value, np.memmap) and not isinstance(value.base, np.ndarray)
    return MappedFile(str(Path(value.filename).resolve())) if whole else value


def from_path(value: Any) -> Any:
    """The reverse of `to_path`."""
    return mapped(value.path) if isinstance(value, MappedFile) else value


class Texts(Sequence[str]):
    """A sequence of strings in two arrays, which may be mapped files; equal to a tuple of the same strings.

    Args:
        ends: End of each string in `content`, in bytes.
        content: All strings as UTF-8, one after the other.

    Shapes:
        - ends: ``(S,)``, content: ``(N,)`` uint8

    >>> texts = Texts.of(["s1", "ü", ""])
    >>> texts[1], texts[-1], len(texts), texts == ("s1", "ü", "")
    ('ü', '', 3, True)
    """

    def __init__(self, ends: npt.NDArray[np.int64], content: npt.NDArray[np.uint8]) -> None:
        self.ends, self.content = ends, content

    @classmethod
    def of(cls, strings: Iterable[str]) -> Texts:
        """Texts of some strings."""
        encoded = [one.encode() for one in strings]
        ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
        return cls(ends, np.frombuffer(b"".join(encoded), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        at = range(len(self))[index]
        first = int(self.ends[at - 1]) if at else 0
        return self.content[first : int(self.ends[at])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        first = 0
        for at in range(0, len(self), _AT_ONCE):
            ends = self.ends[at : at + _AT_ONCE]
            block, base = self.content[first : int(ends[-1])].tobytes(), first
            for end in ends.tolist():
                yield block[first - base : end - base].decode()
                first = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __getstate__(self) -> tuple[Any, Any]:
        return to_path(self.ends), to_path(self.content)

    def __setstate__(self, state: tuple[Any, Any]) -> None:
        self.ends, self.content = map(from_path, state)
