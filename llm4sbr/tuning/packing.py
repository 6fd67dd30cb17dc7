"""Pack prompts and answers into one row of the batch, which computes common prefixes once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm4sbr.views.engines.prefix_tree import grow_trees, shared_beginning

Tokens = list[int]


class PackedAnswers(NamedTuple):
    """``n`` prompts and answers as ``T`` tokens of one row, with ``P`` answer tokens to predict.

    Shapes:
        - tokens, position: ``(1, T)`` long
        - mask: ``(1, 1, T, T)`` bool, True if a token (third axis) attends to another (fourth)
        - node, target: ``(P,)`` long: the token at ``node`` predicts ``target``
        - place: ``(P,)`` long: index of the answer's prompt; the tokens of an answer are contiguous, in order
    """

    tokens: Tensor
    position: Tensor
    mask: Tensor
    node: Tensor
    target: Tensor
    place: Tensor


def pack_answers(prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> PackedAnswers:
    """Pack prompts and their target answers as a tree.

    Args:
        prompts: Token ids of each prompt, at least one.
        answers: Token ids of each prompt's answer, at least one.
    """
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    shared = min(shared_beginning(whole), min(map(len, prompts)) - 1)
    beginning = np.array(whole[0][:shared], dtype=np.int64)
    tokens, position = [beginning], [np.arange(shared)]
    blocks, nodes, targets, places = [], [], [], []
    size = shared
    for tree in grow_trees(whole, skip=shared):
        every = np.arange(len(tree.tokens))
        sees = tree.ancestors(tree.leaf)  # (n, T'): each prompt's path, without its last token
        for place, path in zip(tree.place.tolist(), sees, strict=True):
            steps = np.concatenate([np.arange(shared), every[path] + size])  # columns of its tokens
            answer = answers[place]
            nodes.append(steps[len(prompts[place]) - 1 :])
            targets.append(np.array(answer, dtype=np.int64))
            places.append(np.full(len(answer), place))
        tokens.append(tree.tokens)
        position.append(tree.depth + shared)
        blocks.append(tree.ancestors(every))
        size += len(every)
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[:, :shared] = np.tri(size, shared, dtype=np.bool_)
    begin = shared
    for block in blocks:
        end = begin + len(block)
        mask[begin:end, begin:end] = block
        begin = end
    return PackedAnswers(
        torch.from_numpy(np.concatenate(tokens)).unsqueeze(0),
        torch.from_numpy(np.concatenate(position)).unsqueeze(0),
        torch.from_numpy(mask)[None, None],
        torch.from_numpy(np.concatenate(nodes)),
        torch.from_numpy(np.concatenate(targets)),
        torch.from_numpy(np.concatenate(places)),
    )
