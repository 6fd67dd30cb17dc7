"""Decoding over prefix trees: greedy or beam search, free or constrained to the catalogue, on one cache.

Every partial answer is a branch of its prompt's tree: an attention mask lets it see its prompt and its own
earlier tokens. Beams that diverge therefore share their common beginning, and no cache is copied or
reordered.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llm4sbr.views.engines.prefix_tree import PrefixTree
from llm4sbr.views.engines.title_trie import TitleTrie

IntArray = npt.NDArray[np.int64]


class DecodingOptions(NamedTuple):
    """Decoding strategy and its limits."""

    max_new_tokens: int  # limit of a free answer; a constrained one ends as soon as its title is unambiguous
    stop_ids: frozenset[int]
    num_answers: int = 1  # number of beams
    trie: TitleTrie | None = None


class Hypothesis(NamedTuple):
    """A complete or partial answer."""

    score: float  # log probability; with a trie, normalised over the allowed tokens
    tokens: tuple[int, ...]  # without the stop token
    finished: bool
    choice: int = -1  # index of the trie's choice
    parent: int = -1  # row in the previous step
    node: int = 0  # node of the trie


class Root(NamedTuple):
    """The prefix that all prompts share, computed once."""

    cache: Any  # key-value cache of transformers, batch size 1
    length: int


@torch.inference_mode()
def read_root(model: Any, tokens: Sequence[int]) -> Root | None:
    """Compute the shared prefix of all prompts; returns None if it is empty."""
    if not tokens:
        return None
    output = model(torch.tensor([tokens], device=model.device), use_cache=True, logits_to_keep=1)
    return Root(output.past_key_values, len(tokens))


@torch.inference_mode()
def decode_trees(
    model: Any, trees: Sequence[PrefixTree], options: DecodingOptions, root: Root | None = None
) -> list[list[list[Hypothesis]]]:
    """Answer every prompt of the given trees, which form one batch.

    Returns:
        The answers to each prompt of each tree, best first.
    """
    if options.trie is not None and options.trie.choice[0] >= 0:  # only one title: skip the model
        only = Hypothesis(0.0, (), True, int(options.trie.choice[0]))
        return [[[only] for _ in tree.last] for tree in trees]
    state = _State(model, trees, root)
    prompts = [(row, at) for row, tree in enumerate(trees) for at in range(len(tree.last))]
    done: list[list[Hypothesis]] = [[] for _ in prompts]
    owner = np.arange(len(prompts))  # (H,): the prompt that each partial answer belongs to
    live = [Hypothesis(0.0, (), False) for _ in prompts]
    next_tokens = np.array([int(trees[row].last[at]) for row, at in prompts])
    step = 0
    while live:
        logits = state.feed(next_tokens)  # (H, V)
        step += 1
        found = _continuations(logits, live, options)
        live, next_tokens, owner = _select(found, owner, done, options, last=step == options.max_new_tokens)
        state.keep(np.array([one.parent for one in live], dtype=np.int64))
    answers: list[list[list[Hypothesis]]] = [[] for _ in trees]
    for (row, _), best in zip(prompts, done, strict=True):
        answers[row].append(best)
    return answers


class _State:
    """The model's cache, and the columns of it that each partial answer attends to.

    Shapes:
        - row, position: ``(H,)``: tree of a partial answer, and position of its next token
        - sees: ``(H, C)`` bool over the columns of the cache
    """

    def __init__(self, model: Any, trees: Sequence[PrefixTree], root: Root | None) -> None:
        self.model, self.device = model, model.device
        self.rows, width = len(trees), max(len(tree.tokens) for tree in trees)
        before = root.length if root else 0
        self.cache: Any = None
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
            attention_mask=mask.unsqueeze(1).to(self.device),  # (B, 1, queries, keys)
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=logits,
        )
        self.cache = output.past_key_values
        found: Tensor = output.logits
        return found


def _continuations(
    logits: Tensor, live: list[Hypothesis], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Extend each partial answer by its best next tokens, at most ``num_answers`` of them."""
    if options.trie is None:
        return _free(logits, live, options)
    owner, token, node = options.trie.children(np.array([one.node for one in live]))
    at = (torch.from_numpy(owner).to(logits.device), torch.from_numpy(token).to(logits.device))
    value = logits[at].double().cpu().numpy()  # (c,)
    first = np.searchsorted(owner, np.arange(len(live)))
    top = np.maximum.reduceat(value, first)
    total = top + np.log(np.add.reduceat(np.exp(value - top[owner]), first))  # log-sum-exp of allowed tokens
    score = value - total[owner]
    found = []
    for parent, (one, part) in enumerate(zip(live, np.split(np.arange(len(value)), first[1:]), strict=True)):
        if options.num_answers == 1:
            best = part[[value[part].argmax()]]
        else:
            best = part[np.argsort(-score[part], kind="stable")[: options.num_answers]]
        found.append([_extend(one, score[k], int(token[k]), parent, options, int(node[k])) for k in best])
    return found


def _free(logits: Tensor, live: list[Hypothesis], options: DecodingOptions) -> list[list[Hypothesis]]:
    if options.num_answers == 1:
        token = logits.argmax(-1, keepdim=True)  # breaks ties as `generate` does
    else:
        token = logits.topk(options.num_answers).indices
    score = (logits.gather(-1, token) - logits.logsumexp(-1, keepdim=True)).tolist()
    return [
        [_extend(one, value, next_one, parent, options) for value, next_one in zip(*row, strict=True)]
        for parent, (one, row) in enumerate(zip(live, zip(score, token.tolist(), strict=True), strict=True))
    ]


def _extend(
    one: Hypothesis, score: float, token: int, parent: int, options: DecodingOptions, node: int = 0
) -> Hypothesis:
    stops = token in options.stop_ids
    choice = int(options.trie.choice[node]) if options.trie is not None else -1
    tokens = one.tokens if stops else (*one.tokens, token)
    return Hypothesis(one.score + float(score), tokens, stops or choice >= 0, choice, parent, node)


def _select(
    found: list[list[Hypothesis]],
    owner: IntArray,
    done: list[list[Hypothesis]],
    options: DecodingOptions,
    *,
    last: bool,
) -> tuple[list[Hypothesis], IntArray, IntArray]:
    """Keep the best ``num_answers`` finished or partial answers of each prompt; fills ``done``.

    A further token never raises a score, so a partial answer that ranks below ``num_answers`` finished ones
    can be dropped.
    """
    pool: dict[int, list[Hypothesis]] = {int(prompt): [] for prompt in owner}
    for prompt, continuations in zip(owner.tolist(), found, strict=True):
        pool[prompt] += continuations
    chosen: list[Hypothesis] = []
    owners: list[int] = []
    for prompt, candidates in pool.items():
        ranked = sorted([*done[prompt], *candidates], key=lambda one: -one.score)[: options.num_answers]
        cut = last and options.trie is None
        done[prompt] = [one for one in ranked if one.finished or cut]
        for one in ranked:
            if not (one.finished or cut):
                chosen.append(one)
                owners.append(prompt)
    next_tokens = np.array([one.tokens[-1] for one in chosen], dtype=np.int64)
    return chosen, next_tokens, np.array(owners, dtype=np.int64)
