"""Which sessions to ask about, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from llm4sbr.examples import ExampleSource, Split

Prefix = tuple[int, ...]
_T = TypeVar("_T")


def session_keys(source: ExampleSource, split: Split) -> list[tuple[bytes, Prefix]]:
    """Content key and prefix of every example of a split, in example order."""
    key = source.catalogue.session_key
    return [(key(prefix), prefix) for prefix in source.examples(split).prefixes()]


def in_chains(sessions: Mapping[bytes, Prefix], seed: int) -> list[bytes]:
    """Session keys in an order in which the prefixes of one session stand together, shortest first.

    Prefixes that extend one another share most of their prompt. The chains are shuffled by content and seed,
    so the order of the data has no say in it.
    """
    chains: list[list[bytes]] = []
    before: Prefix = ()
    for key, prefix in sorted(sessions.items(), key=lambda entry: entry[1]):
        if before and prefix[: len(before)] == before:
            chains[-1].append(key)
        else:
            chains.append([key])
        before = prefix
    salt = str(seed).encode()
    chains.sort(key=lambda chain: hashlib.blake2b(chain[-1], key=salt, digest_size=8).digest())
    return [key for chain in chains for key in chain]


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of ``size`` items; the last may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
