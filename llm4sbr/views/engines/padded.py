"""Padded batches for models that read no prefix tree: recurrent layers, or prompts beyond a sliding window.

Every prompt is a row of its own, so prompts share no computation. The search is the one of `search`, so
both ways give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from llm4sbr.views.engines.search import DecodingOptions, Hypothesis, IntArray, State, only_title, search
from llm4sbr.views.quiet import quiet_transformers

T = TypeVar("T")


def decode_rows(
    model: Any, prompts: Sequence[Sequence[int]], options: DecodingOptions, pad: int, cached: bool = True
) -> list[list[Hypothesis]]:
    """Answer a batch of prompts, each best first; the arguments are those of `with_rows`."""
    if (only := only_title(options)) is not None:
        return [[only] for _ in prompts]
    last = np.array([one[-1] for one in prompts], dtype=np.int64)
    return with_rows(model, prompts, pad, lambda state: search(state, last, options), cached)


@torch.inference_mode()
def with_rows(
    model: Any, prompts: Sequence[Sequence[int]], pad: int, use: Callable[[State], T], cached: bool = True
) -> T:
    """Use the state of a batch; transformers' `generate` prepares the model's inputs and its cache.

    Args:
        model: Any causal language model.
        prompts: Token ids of each prompt, at least one.
        pad: Any token; it stands left of shorter prompts, where the attention mask hides it.
        use: Function of the state, which first expects each prompt's last token.
        cached: Whether the model keeps what it has computed; without, each token costs the whole text again.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=model.device)
    found: list[T] = []

    def decode(model: Any, input_ids: Tensor, **inputs: Any) -> Tensor:
        for other in ("logits_processor", "stopping_criteria", "generation_config"):
            inputs.pop(other, None)
        found.append(use(_Rows(model, input_ids, inputs)))
        return input_ids

    with quiet_transformers():
        model.generate(
            ids,
            attention_mask=mask,
            custom_generate=decode,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            use_cache=cached,
        )
    return found[0]


class _Rows:
    """One row of the batch for each partial answer.

    Args:
        model: Language model.
        ids: Tokens of the prompts, padded on the left.
        inputs: Further inputs that `generate` prepared: attention mask, cache, …

    Shapes:
        - ids: ``(H, T)``
    """

    def __init__(self, model: Any, ids: Tensor, inputs: dict[str, Any]) -> None:
        self.model, self.ids, self.inputs, self.fresh = model, ids, inputs, True

    def feed(self, tokens: IntArray) -> Tensor:
        """Append a token to each partial answer; returns the next logits, ``(H, V)`` float32."""
        if not self.fresh:  # the prompts' last tokens are already among `ids`
            new = torch.from_numpy(tokens).to(self.ids.device)
            self.ids = torch.cat([self.ids, new[:, None]], dim=1)
        cached = not self.fresh and bool(self.inputs.get("use_cache"))
        given = self.model.prepare_inputs_for_generation(
            self.ids,
            next_sequence_length=1 if cached else None,
            is_first_iteration=self.fresh,
            **self.inputs,
        )
        output = self.model(**given, return_dict=True)
        self.inputs = self.model._update_model_kwargs_for_generation(output, self.inputs)
        self.fresh = False
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, parents: IntArray) -> None:
        """Continue with the given partial answers; an index may occur several times."""
        if not len(parents) or np.array_equal(parents, np.arange(len(self.ids))):
            return
        rows = torch.from_numpy(parents).to(self.ids.device)
        self.ids = self.ids[rows]
        for name, value in self.inputs.items():
            if hasattr(value, "reorder_cache"):
                value.reorder_cache(rows)
            elif isinstance(value, Tensor) and value.dim() > 1:
                self.inputs[name] = value[rows]
