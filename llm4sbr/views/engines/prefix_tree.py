"""Prefix trees: prompts with a common prefix share one tree of tokens, so the model computes it once.

The prefixes of one session, and the views of one prefix, differ only near their end. Laid out in preorder, a
tree is one row of the batch: a token attends to its ancestors and itself, and its position is its depth, so
its hidden state is the same as when its prompt is computed alone.
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

    The last token is kept apart because it is the first one that decoding feeds to the model.

    Shapes:
        - tokens, depth: ``(T,)``; the depth counts from 0
        - end: ``(T,)``, one past a node's last descendant; node ``a`` is ``b`` or an ancestor of it if
          ``a <= b < end[a]``
        - leaf: ``(n,)``, the parent node of a prompt's last token; -1 if it has none
        - last: ``(n,)``, each prompt's last token
        - place: ``(n,)``, each prompt's index in the input list
        - new: ``(n,)``, number of tokens that a prompt adds to the tree, including its last one
    """

    tokens: IntArray
    depth: IntArray
    end: IntArray
    leaf: IntArray
    last: IntArray
    place: IntArray
    new: IntArray

    def ancestors(self, nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Mask of the nodes that each given node attends to: its ancestors and itself; none for -1.

        Shapes:
            - nodes: ``(m,)``; output: ``(m, T)``
        """
        every = np.arange(len(self.tokens))
        return (every <= nodes[:, None]) & (nodes[:, None] < self.end)


def shared_beginning(prompts: Sequence[Tokens]) -> int:
    """Length of the longest prefix that all prompts share; leaves at least one token of each prompt.

    >>> shared_beginning([[1, 2, 3], [1, 2, 4], [1, 2]])
    1
    """
    if not prompts:
        return 0
    shared = _common(min(prompts), max(prompts))  # in sorted order the first and the last differ earliest
    return max(0, min(shared, min(map(len, prompts)) - 1))


def grow_trees(
    prompts: Sequence[Tokens], skip: int = 0, max_tokens: int = 768, least_shared: int = 8
) -> Iterator[PrefixTree]:
    """Group prompts with a common prefix into trees.

    Args:
        prompts: Token ids of each prompt, at least one beyond ``skip``.
        skip: Number of tokens to leave out at the beginning of each prompt; depths count after them.
        max_tokens: Maximum size of a tree; a longer prompt forms a tree by itself.
        least_shared: Number of tokens that a prompt must share with its predecessor to join the same tree.
    """
    order = sorted(range(len(prompts)), key=lambda place: prompts[place])
    path: list[int] = []  # nodes of the latest prompt
    nodes: list[tuple[int, int]] = []  # (token, depth)
    ends: list[int] = []
    rows: list[tuple[int, int, int, int]] = []  # (leaf, last, place, new)
    before: Tokens = []

    def tree() -> PrefixTree:
        for node in path:
            ends[node] = len(nodes)
        tokens, depth = np.array(nodes, dtype=np.int64).reshape(-1, 2).T
        leaf, last, place, new = np.array(rows, dtype=np.int64).T
        return PrefixTree(tokens, depth, np.array(ends, dtype=np.int64), leaf, last, place, new)

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
    """Length of the longest common prefix of two lists."""
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return shared
