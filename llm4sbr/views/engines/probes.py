"""Which ways of reading prompts a language model follows, found out by trying them once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.finite import require_finite
from llm4sbr.views.engines.decoding import TreeState
from llm4sbr.views.engines.padded import with_rows
from llm4sbr.views.engines.prefix_tree import grow_trees
from llm4sbr.views.engines.search import State


@torch.inference_mode()
def reads_trees(model: Any) -> bool:
    """Whether the model follows a tree's mask: a branch's logits do not depend on the branch beside it.

    Recurrent and linear-attention layers carry over every token to the left.
    """
    prompts, said = _prompts(model)
    try:
        (tree,) = grow_trees([prompt[:3] for prompt in prompts], least_shared=1)
        together = _logits(TreeState(model, [tree], None), [int(token) for token in tree.last], said)
    except Exception:  # the model takes no such mask or cache: whatever it raises, it reads no tree
        return False
    alone = [_alone(model, prompts[place][:3], said) for place in tree.place]
    return _equal(model, together, torch.cat(alone, dim=1))


@torch.inference_mode()
def keeps_cache(model: Any) -> bool:
    """Whether the rows of the model's cache can be reordered; some models keep a state that cannot (RWKV)."""
    prompt = _prompts(model)[0][1]
    rows = [prompt, prompt[::-1]]

    def swapped(state: State) -> Tensor:
        state.feed(np.array([row[-1] for row in rows]))
        state.keep(np.array([1, 1, 0]))
        return state.feed(np.array([rows[1][0], rows[1][0], rows[0][0]]))

    def alone(row: list[int]) -> Tensor:
        def steps(state: State) -> Tensor:
            state.feed(np.array(row[-1:]))
            return state.feed(np.array(row[:1]))

        return with_rows(model, [row], 0, steps, cached=False)

    try:
        found = with_rows(model, rows, 0, swapped)
    except Exception:  # whatever the model raises, it keeps no such cache
        return False
    first, second = map(alone, rows)
    return _equal(model, found, torch.cat([second, second, first]))


@torch.inference_mode()
def reads_padding(model: Any, cached: bool) -> bool:
    """Whether a prompt's logits stay the same beside a longer one; otherwise a batch needs equal lengths."""
    prompts, said = _prompts(model)
    last = [prompt[-1] for prompt in prompts]
    together = with_rows(model, prompts, 0, lambda state: _logits(state, last, said), cached)
    return _equal(model, together, torch.cat([_alone(model, one, said) for one in prompts], dim=1))


def _prompts(model: Any) -> tuple[list[list[int]], int]:
    """Two prompts that share their beginning, and a token to say after them."""
    size = model.config.get_text_config().vocab_size
    a, b, c, d = (size // n for n in (2, 3, 5, 7))
    return [[a, b, c], [a, b, d, c, a, d]], b


def _alone(model: Any, prompt: list[int], said: int) -> Tensor:
    found = with_rows(model, [prompt], 0, lambda state: _logits(state, prompt[-1:], said))
    require_finite(
        found, "the language model's scores", hint="Its weights are broken, or overflow in their dtype"
    )
    return found


def _logits(state: State, last: list[int], said: int) -> Tensor:
    """Logits of two steps, ``(2, H, V)``."""
    return torch.stack([state.feed(np.array(tokens)) for tokens in (last, [said] * len(last))])


def _equal(model: Any, one: Tensor, other: Tensor) -> bool:
    within = 1e-3 if model.dtype == torch.float32 else 0.05  # 16 bits round coarsely
    return bool((one - other).abs().max() <= within * other.abs().max())
