"""A trie over the tokens of the catalogue's titles, which constrains decoding to the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class TitleTrie:
    """Every choice as a path of tokens from node 0, cut at the first node with only one choice left.

    Below that node each next token is determined, so its probability among the allowed tokens is 1 and
    decoding can stop: six tokens usually distinguish a title of twenty tokens from twelve thousand others.

    Args:
        choices: Token ids of each choice; of equal choices the first is kept (a tokenizer may ignore case).
        stop: Token that ends an answer; it distinguishes a choice from a longer one with the same beginning.

    Shapes:
        - start: ``(N + 1,)``; children of node ``a`` are at ``start[a]:start[a + 1]``
        - token, node: ``(N - 1,)``, a child's token and its node
        - choice: ``(N,)``, the only choice left at a node, or -1 if there are several
        - depth: largest number of tokens until a choice is the only one left
    """

    def __init__(self, choices: Sequence[Sequence[int]], stop: int) -> None:
        paths = [[*choice, stop] for choice in choices]
        order = sorted(range(len(paths)), key=paths.__getitem__)  # stable: equal ones keep their order
        order = [at for k, at in enumerate(order) if k == 0 or paths[at] != paths[order[k - 1]]]
        # Breadth first, so that a node's children are adjacent: (first, last) in `order`, depth.
        spans = [(0, len(order), 0)]
        self.choice: IntArray
        start, token, choice = [0], [], []
        for first, last, depth in spans:  # the loop appends to the list
            choice.append(order[first] if last - first == 1 else -1)
            if last - first > 1:
                begin = first
                for at in range(first, last):
                    here = paths[order[at]][depth]
                    if at + 1 == last or paths[order[at + 1]][depth] != here:
                        token.append(here)
                        spans.append((begin, at + 1, depth + 1))
                        begin = at + 1
            start.append(len(token))
        self.depth = spans[-1][2]
        self.start = np.array(start, dtype=np.int64)
        self.token = np.array(token, dtype=np.int64)
        self.choice = np.array(choice, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.choice)

    def walk(self, path: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the shortest unique prefix of a choice and the node at which each of its tokens is chosen.

        Args:
            path: All tokens of the choice, including the stop token.
        """
        node = 0
        tokens: list[int] = []
        nodes: list[int] = []
        for token in path:
            if self.choice[node] >= 0:
                break
            begin, end = self.start[node], self.start[node + 1]
            tokens.append(token)
            nodes.append(node)
            node = int(begin + np.searchsorted(self.token[begin:end], token)) + 1
        return tokens, nodes

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the children of all given nodes, concatenated.

        Returns:
            For each child: its parent's index in ``nodes`` (not the node itself), its token, its node.

        Shapes:
            - nodes: ``(m,)``; output: three of ``(c,)``
        """
        count = self.start[nodes + 1] - self.start[nodes]  # (m,)
        owner = np.repeat(np.arange(len(nodes)), count)  # (c,)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        edge = np.repeat(self.start[nodes], count) + within
        return owner, self.token[edge], edge + 1  # breadth first: edge k leads to node k + 1
