"""Which sessions to ask about, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from llm4sbr.examples import ExampleSource, Split

Prefix = tuple[int, ...]
_T = TypeVar("_T")


def session_keys(source: ExampleSource, split: Split) -> list[tuple[bytes, Prefix]]:
    """Content key and prefix of every example of a split, in example order."""
    key = source.catalogue.session_key
    return [(key(prefix), prefix) for prefix in source.examples(split).prefixes()]


def random_order(keys: Iterable[bytes], seed: int) -> list[bytes]:
    """Session keys shuffled by content and seed: the order of the data has no say in it."""
    salt = str(seed).encode()
    return sorted(keys, key=lambda key: hashlib.blake2b(key, key=salt, digest_size=8).digest())


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of ``size`` items; the last may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
