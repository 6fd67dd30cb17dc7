"""Greedy or beam search, free or constrained to the catalogue, whatever computes the logits."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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


class State(Protocol):
    """The model and what it keeps of the partial answers, one row of logits for each."""

    def feed(self, tokens: IntArray) -> Tensor:
        """Append a token to each partial answer; returns the next logits, ``(H, V)`` float32."""
        ...

    def keep(self, parents: IntArray) -> None:
        """Continue with the given partial answers; an index may occur several times."""
        ...


def only_title(options: DecodingOptions) -> Hypothesis | None:
    """Return the answer to every prompt if the catalogue has one title: the model need not run."""
    if options.trie is None or options.trie.choice[0] < 0:
        return None
    return Hypothesis(0.0, (), True, int(options.trie.choice[0]))


def search(state: State, next_tokens: IntArray, options: DecodingOptions) -> list[list[Hypothesis]]:
    """Search the best answers to a batch of prompts, greedily or with beams.

    Args:
        state: The model's state after all but the last token of each prompt.
        next_tokens: Last token of each prompt.
        options: Decoding strategy.
    """
    done: list[list[Hypothesis]] = [[] for _ in next_tokens]
    owner = np.arange(len(next_tokens))  # (H,): the prompt that each partial answer belongs to
    live = [Hypothesis(0.0, (), False) for _ in next_tokens]
    step = 0
    while live:
        logits = state.feed(next_tokens)  # (H, V)
        step += 1
        found = _continuations(logits, live, options)
        live, next_tokens, owner = _select(found, owner, done, options, last=step == options.max_new_tokens)
        state.keep(np.array([one.parent for one in live], dtype=np.int64))
    return done


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
