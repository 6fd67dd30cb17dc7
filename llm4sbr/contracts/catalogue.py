"""The catalogue: items in a fixed order, with their ids and titles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llm4sbr.contracts.errors import InputError


@dataclass(frozen=True)
class Catalogue:
    """Items 1..V with the shop's ids and their titles.

    Item ``k`` is ``item_ids[k - 1]``; 0 is padding and not an item. A title may be empty.

    Args:
        item_ids: ``V`` distinct ids as unchanged strings (leading zeros, spaces and emoji are kept).
        titles: ``V`` titles in the same order.

    >>> catalogue = Catalogue(("a", "b"), ("Soap", "Shampoo"))
    >>> catalogue.num_items, catalogue.index["b"], catalogue.title(2)
    (2, 2, 'Shampoo')
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.item_ids) != len(self.titles):
            raise InputError(f"{len(self.item_ids)} item ids but {len(self.titles)} titles")
        if len(set(self.item_ids)) != len(self.item_ids):
            seen: set[str] = set()
            double = next(item for item in self.item_ids if item in seen or seen.add(item))  # type: ignore[func-returns-value]
            raise InputError("duplicate item id in the catalogue", value=double)

    @property
    def num_items(self) -> int:
        """``V``, the number of real items, without padding."""
        return len(self.item_ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """Mapping from item id to its number in 1..V."""
        return {item: number for number, item in enumerate(self.item_ids, start=1)}

    def title(self, item: int) -> str:
        """Title of item ``item`` in 1..V."""
        if not 1 <= item <= len(self.titles):
            raise InputError(f"items are 1..{len(self.titles)}", value=item)
        return self.titles[item - 1]

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """A 16-byte digest of (id, title) per item; content keys are computed from them."""
        return tuple(
            hashlib.blake2b(f"{len(item)}:{item}{title}".encode(), digest_size=16).digest()
            for item, title in zip(self.item_ids, self.titles, strict=True)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of every id and title in order; it identifies the catalogue."""
        return hashlib.blake2b(b"".join(self.digests), digest_size=16).hexdigest()

    @cached_property
    def id_digests(self) -> npt.NDArray[np.int64]:
        """An 8-byte digest of every id, ``(V,)``; two of a million ids are equal with probability 3e-8."""
        return _short_digests(self.item_ids)

    @cached_property
    def title_digests(self) -> npt.NDArray[np.int64]:
        """An 8-byte digest of every title, ``(V,)``."""
        return _short_digests(self.titles)

    def session_key(self, items: Sequence[int]) -> bytes:
        """16-byte content key of a session, a digest of its items' ids and titles in click order."""
        digests = self.digests
        return hashlib.blake2b(b"".join([digests[item - 1] for item in items]), digest_size=16).digest()


def read_ids(path: str | Path) -> list[str]:
    """Read a list of items: one id a line, in UTF-8; spaces around an id and empty lines are left out.

    Raises:
        InputError: If the file cannot be read, or has no id.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"this list of items cannot be read: {reason}", path=path) from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError("this list of items is empty", path=path, hint="Write one item id a line")
    return found


def _short_digests(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, dtype="<i8").astype(np.int64)
