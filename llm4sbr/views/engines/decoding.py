"""Decoding over prefix trees: partial answers share one cache.

Every partial answer is a branch of its prompt's tree: an attention mask lets it see its prompt and its own
earlier tokens. Beams that diverge therefore share their common beginning, and no cache is copied or
reordered.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm4sbr.views.engines.prefix_tree import PrefixTree
from llm4sbr.views.engines.search import DecodingOptions, Hypothesis, IntArray, only_title, search


class Root(NamedTuple):
    """The prefix that all prompts share, computed once."""

    cache: Any  # key-value cache of transformers, batch size 1
    length: int


def whole_cache() -> Any:
    """Create a cache that keeps every token, also in layers with a sliding window.

    A tree may be wider than the window while each of its prompts fits: the mask alone decides.
    """
    from transformers import DynamicCache

    return DynamicCache()


def tree_mask(model: Any, mask: Tensor) -> Tensor:
    """Convert a mask to what the model's attention takes: bool for SDPA, else a number to add to scores."""
    if model.config._attn_implementation == "sdpa":
        return mask
    return torch.where(mask, 0.0, torch.finfo(model.dtype).min).to(model.dtype)


@torch.inference_mode()
def read_root(model: Any, tokens: Sequence[int]) -> Root | None:
    """Compute the shared prefix of all prompts; returns None if it is empty."""
    if not tokens:
        return None
    output = model(
        torch.tensor([tokens], device=model.device),
        past_key_values=whole_cache(),
        use_cache=True,
        logits_to_keep=1,
    )
    return Root(output.past_key_values, len(tokens))


@torch.inference_mode()
def decode_trees(
    model: Any, trees: Sequence[PrefixTree], options: DecodingOptions, root: Root | None = None
) -> list[list[list[Hypothesis]]]:
    """Answer every prompt of the given trees, which form one batch.

    Returns:
        The answers to each prompt of each tree, best first.
    """
    if (only := only_title(options)) is not None:
        return [[[only] for _ in tree.last] for tree in trees]
    found = search(TreeState(model, trees, root), np.concatenate([tree.last for tree in trees]), options)
    ends = np.cumsum([len(tree.last) for tree in trees])
    return [found[end - len(tree.last) : end] for tree, end in zip(trees, ends, strict=True)]


class TreeState:
    """The model's cache, and the columns of it that each partial answer attends to.

    Shapes:
        - row, position: ``(H,)``: tree of a partial answer, and position of its next token
        - sees: ``(H, C)`` bool over the columns of the cache
    """

    def __init__(self, model: Any, trees: Sequence[PrefixTree], root: Root | None) -> None:
        self.model, self.device = model, model.device
        self.rows, width = len(trees), max(len(tree.tokens) for tree in trees)
        before = root.length if root else 0
        self.cache: Any = whole_cache()
        if root:
            self.cache = copy.deepcopy(root.cache)
            self.cache.batch_repeat_interleave(self.rows)
        tokens, position = np.zeros((2, self.rows, width), dtype=np.int64)
        mask = np.zeros((self.rows, width, before + width), dtype=np.bool_)
        mask[:, :, :before] = True
        mask[:, range(width), range(before, before + width)] = True  # padding sees itself: no empty softmax
        sees = []
        for row, tree in enumerate(trees):
            size = len(tree.tokens)
            tokens[row, :size], position[row, :size] = tree.tokens, tree.depth + before
            mask[row, :size, before : before + size] = tree.ancestors(np.arange(size))
            prompt = np.zeros((len(tree.leaf), before + width), dtype=np.bool_)
            prompt[:, :before] = True
            prompt[:, before : before + size] = tree.ancestors(tree.leaf)
            sees.append(prompt)
        if width:
            self._forward(tokens, position, torch.from_numpy(mask))
        self.row = np.repeat(np.arange(self.rows), [len(tree.leaf) for tree in trees])
        leaf = [np.append(tree.depth, -1)[tree.leaf] for tree in trees]  # leaf -1: depth -1, also if T = 0
        self.position = np.concatenate(leaf) + before + 1
        self.sees = torch.from_numpy(np.concatenate(sees)).to(self.device)

    def feed(self, tokens: IntArray) -> Tensor:
        """Append a token to each partial answer; returns the next logits, ``(H, V)`` float32."""
        _, first, count = np.unique(self.row, return_index=True, return_counts=True)
        slot = np.arange(len(self.row)) - np.repeat(first, count)  # (H,): rows are sorted
        width, seen = int(count.max()), self.sees.size(1)
        ids, position = np.zeros((2, self.rows, width), dtype=np.int64)
        ids[self.row, slot], position[self.row, slot] = tokens, self.position
        mask = torch.zeros(self.rows, width, seen + width, dtype=torch.bool, device=self.device)
        row, at = torch.from_numpy(self.row), torch.from_numpy(slot)
        mask[row, at, :seen] = self.sees
        mask[:, :, seen:] = torch.eye(width, dtype=torch.bool, device=self.device)
        logits: Tensor = self._forward(ids, position, mask, logits=0)[row, at].float()
        self.sees = mask[row, at]
        self.position = self.position + 1
        return logits

    def keep(self, parents: IntArray) -> None:
        """Continue with the given partial answers; an index may occur several times."""
        self.row, self.position = self.row[parents], self.position[parents]
        self.sees = self.sees[torch.from_numpy(parents)]
        rows = np.unique(self.row)
        if 0 < len(rows) <= self.rows // 2:  # finished trees leave the batch
            self.cache.batch_select_indices(torch.from_numpy(rows).to(self.device))
            self.row, self.rows = np.searchsorted(rows, self.row), len(rows)

    def _forward(self, tokens: IntArray, position: IntArray, mask: Tensor, logits: int = 1) -> Tensor:
        output = self.model(
            input_ids=torch.from_numpy(tokens).to(self.device),
            position_ids=torch.from_numpy(position).to(self.device),
            attention_mask=tree_mask(self.model, mask.unsqueeze(1).to(self.device)),  # (B, 1, queries, keys)
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=logits,
        )
        self.cache = output.past_key_values
        found: Tensor = output.logits
        return found
