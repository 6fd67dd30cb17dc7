"""Prompts that begin alike, as one tree of tokens: each shared beginning goes through the model once.

The prefixes of one session, and the views of one prefix, differ only near their end. Laid out in preorder, a
tree is one row for the model: a token sees its ancestors and itself, and stands at the position of its depth,
so its hidden state is the one it has when its prompt is computed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Tokens = list[int]


class PrefixTree(NamedTuple):
    """``n`` prompts as ``T`` nodes in preorder, each prompt without its last token.

    The last token stays out because it is asked: it is the first one that decoding feeds to the model.

    Shapes:
        - tokens, depth: ``(T,)``; the depth counts from 0
        - end: ``(T,)``, one past a node's last descendant; node ``a`` is ``b`` or an ancestor of it where
          ``a <= b < end[a]``
        - leaf: ``(n,)``, the node that a prompt's last token hangs from; -1 where there is none
        - asked: ``(n,)``, each prompt's last token
        - place: ``(n,)``, each prompt's place in the list it came from
        - new: ``(n,)``, tokens that a prompt adds to the tree, its last one included
    """

    tokens: IntArray
    depth: IntArray
    end: IntArray
    leaf: IntArray
    asked: IntArray
    place: IntArray
    new: IntArray

    def ancestors(self, nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Which nodes each of some nodes sees: its ancestors and itself; nothing for -1.

        Shapes:
            - nodes: ``(m,)``; output: ``(m, T)``
        """
        every = np.arange(len(self.tokens))
        return (every <= nodes[:, None]) & (nodes[:, None] < self.end)


def shared_beginning(prompts: Sequence[Tokens]) -> int:
    """How many tokens all prompts begin with, at least one of each prompt left over.

    >>> shared_beginning([[1, 2, 3], [1, 2, 4], [1, 2]])
    1
    """
    if not prompts:
        return 0
    shared = _common(min(prompts), max(prompts))  # the first and the last in order differ earliest
    return max(0, min(shared, min(map(len, prompts)) - 1))


def grow_trees(
    prompts: Sequence[Tokens], skip: int = 0, max_tokens: int = 768, least_shared: int = 8
) -> Iterator[PrefixTree]:
    """Gather prompts that begin alike into trees.

    Args:
        prompts: At least one token each beyond ``skip``.
        skip: Leave out this many tokens at the beginning of each prompt; depths count after them.
        max_tokens: A tree stops growing there; a longer prompt is a tree of its own.
        least_shared: A prompt joins a tree where it shares so many tokens with its neighbour there.
    """
    order = sorted(range(len(prompts)), key=lambda place: prompts[place])
    path: list[int] = []  # nodes of the latest prompt
    nodes: list[tuple[int, int]] = []  # (token, depth)
    ends: list[int] = []
    rows: list[tuple[int, int, int, int]] = []  # (leaf, asked, place, new)
    before: Tokens = []

    def tree() -> PrefixTree:
        for node in path:
            ends[node] = len(nodes)
        tokens, depth = np.array(nodes, dtype=np.int64).reshape(-1, 2).T
        leaf, asked, place, new = np.array(rows, dtype=np.int64).T
        return PrefixTree(tokens, depth, np.array(ends, dtype=np.int64), leaf, asked, place, new)

    for place in order:
        prompt = prompts[place][skip:]
        inner = prompt[:-1]
        shared = _common(before, inner)
        if rows and (shared < least_shared or len(nodes) + len(inner) - shared > max_tokens):
            yield tree()
            path, nodes, ends, rows, shared = [], [], [], [], 0
        for node in path[shared:]:
            ends[node] = len(nodes)
        del path[shared:]
        for depth in range(shared, len(inner)):
            path.append(len(nodes))
            nodes.append((inner[depth], depth))
            ends.append(0)
        rows.append((path[-1] if path else -1, prompt[-1], place, len(prompt) - shared))
        before = inner
    if rows:
        yield tree()


def _common(one: Tokens, other: Tokens) -> int:
    """How many tokens two lists begin with alike."""
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return shared
