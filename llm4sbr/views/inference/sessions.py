"""Session keys of a data module, and the order in which the LLM is queried about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TypeVar

from llm4sbr.contracts.examples import ExampleSource, Split

Prefix = tuple[int, ...]
_T = TypeVar("_T")


def session_keys(source: ExampleSource, split: Split) -> list[tuple[bytes, Prefix]]:
    """Content key and prefix of every example of a split, in example order."""
    key = source.catalogue.session_key
    return [(key(prefix), prefix) for prefix in source.examples(split).each_prefix()]


def in_chains(sessions: Mapping[bytes, Prefix], seed: int) -> list[bytes]:
    """Order session keys so that the prefixes of one session are adjacent, shortest first.

    Neighbouring prefixes share most of their prompt. The chains are shuffled by content and seed, so the
    result does not depend on the order of the data.
    """
    ordered = sorted(sessions.items(), key=lambda entry: entry[1])
    follows = dict(_links(ordered))
    starts = sessions.keys() - follows.values()
    chains = [_chain(start, follows) for start in starts]
    rest = sessions.keys() - {key for chain in chains for key in chain}  # cycles of sliding prefixes
    chains += [[key] for key in rest]
    salt = str(seed).encode()
    chains.sort(key=lambda chain: hashlib.blake2b(chain[-1], key=salt, digest_size=8).digest())
    return [key for chain in chains for key in chain]


def _links(ordered: Sequence[tuple[bytes, Prefix]]) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of a key and its successor: a prefix with further clicks, or a window that slid by one click.

    A data module limits a prefix to the latest clicks, so at the maximum length the prefixes of a long
    session slide instead of growing.
    """
    longest = max((len(prefix) for _, prefix in ordered), default=0)
    slides: dict[Prefix, list[bytes]] = {}
    for key, prefix in ordered:
        if len(prefix) == longest:
            slides.setdefault(prefix[:-1], []).append(key)
    followed = set()
    for (key, prefix), (other, longer) in pairwise(ordered):
        if longer[: len(prefix)] == prefix:
            followed.add(other)
            yield key, other
    for key, prefix in ordered:
        if len(prefix) == longest > 1:
            free = [other for other in slides.get(prefix[1:], ()) if other != key and other not in followed]
            if free:
                followed.add(free[0])
                yield key, free[0]


def _chain(start: bytes, follows: Mapping[bytes, bytes]) -> list[bytes]:
    chain = [start]
    while (following := follows.get(chain[-1])) is not None:
        chain.append(following)
    return chain


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Split items into lists of ``size``; the last one may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
