"""In-process engine on transformers: prompts with a common prefix share its computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import exp

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, Ranged
from llm4sbr.views.engines import Answer, Choice, Reply
from llm4sbr.views.engines.decoding import DecodingOptions, Hypothesis, Root, decode_trees, read_root
from llm4sbr.views.engines.language_model import Dtype, LanguageModel
from llm4sbr.views.engines.prefix_tree import PrefixTree, grow_trees, shared_beginning
from llm4sbr.views.engines.title_trie import TitleTrie
from llm4sbr.views.identity import EngineIdentity, digest


class TransformersEngine(Ranged):
    """Greedy or beam-search answers from a causal language model.

    Prompts of one call that share a prefix form one tree (`prefix_tree`), and the prefix common to all of
    them is computed once. In float32 an answer equals the one-by-one greedy answer up to ties within
    rounding; in bfloat16 two tokens of nearly equal score may swap depending on the batch's other prompts.

    Args:
        model: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name.
        adapter: Folder of a PEFT adapter for the model, as `llm4sbr tune-llm` writes.
        max_new_tokens: Maximum length of a free answer in tokens.
        choices: Allowed answers, such as the catalogue's titles; None decodes freely.
        num_answers: Number of answers per prompt, found by beam search; 1 decodes greedily.
        batch_size: Recommended number of prompts per call; more prompts share more computation.
        batch_tokens: Prompt tokens of one forward pass; by default as many as fit the device's memory.
        dtype: Type of the weights, see `LanguageModel`. It can change answers, so it is part of their key:
            set it explicitly to share a store between machines with and without fast bfloat16.
        device: Device of the model; ``auto`` takes a GPU if there is one.
        device_map: Placement of a large model over several devices, as in transformers; replaces ``device``.

    Raises:
        InputError: The model is not found, or an argument is out of range.
    """

    def __init__(
        self,
        model: str = "SmolLM2-135M",
        adapter: str | None = None,
        max_new_tokens: PositiveInt = 24,
        choices: Sequence[str] | None = None,
        num_answers: PositiveInt = 1,
        batch_size: PositiveInt = 512,
        batch_tokens: PositiveInt | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        device_map: str | None = None,
    ) -> None:
        self.lm = LanguageModel(model, adapter, dtype, device, device_map)
        self.max_new_tokens, self.num_answers = max_new_tokens, num_answers
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self.choices = None if choices is None else _distinct(choices)

    @property
    def batch_size(self) -> int:
        """Recommended number of prompts per call."""
        return self._batch_size

    @cached_property
    def identity(self) -> EngineIdentity:
        """Identity of the weights, the chat template and the decoding."""
        decoding: dict[str, str | int | float | bool] = {
            "strategy": "greedy" if self.num_answers == 1 else "beams",
            "dtype": self.lm.dtype,
        }
        if self.num_answers > 1:
            decoding["num_answers"] = self.num_answers
        if self.choices is None:
            decoding["max_new_tokens"] = self.max_new_tokens
        else:
            decoding["choices"] = digest(sorted(self.choices))
        return EngineIdentity(self.lm.identity, decoding, self.lm.chat_template, self.lm.adapter_identity)

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Answer every prompt, one forward pass's batch at a time, longest trees first.

        Raises:
            InputError: A prompt exceeds the model's context length.
        """
        if not prompts:
            return
        tokens = self.lm.encode(prompts)
        self.lm.check_length(max(map(len, tokens)) + self.max_new_tokens)
        shared = shared_beginning(tokens)
        root = read_root(self.lm.model, tokens[0][:shared])
        lengths = [len(one) for one in tokens]
        trees = sorted(grow_trees(tokens, skip=shared), key=lambda tree: -len(tree.tokens))
        if root is not None:
            trees[0].new[0] += root.length  # computed once: count it for one prompt
        while trees:
            rows = max(1, self._tokens_per_pass // max(1, len(trees[0].tokens) + len(trees[0].last)))
            yield self._answer(trees[:rows], lengths, root)
            del trees[:rows]

    def _answer(self, trees: list[PrefixTree], lengths: list[int], root: Root | None) -> list[Reply]:
        try:
            found = decode_trees(self.lm.model, trees, self._decoding, root)
        except torch.OutOfMemoryError:  # on a GPU; a smaller pass gives the same answers
            if len(trees) == 1:
                raise
            torch.cuda.empty_cache()
            self._tokens_per_pass //= 2
            half = len(trees) // 2
            return [*self._answer(trees[:half], lengths, root), *self._answer(trees[half:], lengths, root)]
        return [
            Reply(int(place), self._reply(best, lengths[place], int(new)))
            for tree, answers in zip(trees, found, strict=True)
            for place, new, best in zip(tree.place, tree.new, answers, strict=True)
        ]

    def _reply(self, best: list[Hypothesis], prompt_tokens: int, computed: int) -> Answer:
        texts = [self._text(one) for one in best]
        choices = tuple(Choice(text, exp(one.score)) for text, one in zip(texts, best, strict=True))
        return Answer(
            texts[0],
            prompt_tokens,
            computed,
            len(best[0].tokens),
            best[0].finished,
            choices if self.num_answers > 1 else (),
        )

    def _text(self, one: Hypothesis) -> str:
        if self.choices is not None:
            return self.choices[one.choice]
        return str(self.lm.tokenizer.decode(one.tokens, skip_special_tokens=True)).strip()

    @cached_property
    def _decoding(self) -> DecodingOptions:
        trie = None
        if self.choices is not None:
            trie = TitleTrie(self.lm.plain(self.choices), self.lm.end_id)
        return DecodingOptions(self.max_new_tokens, self.lm.stop_ids, self.num_answers, trie)

    @cached_property
    def _tokens_per_pass(self) -> int:
        if self._batch_tokens is not None:
            return self._batch_tokens
        if self.lm.model.device.type != "cuda":
            return 2048  # saturates a CPU's matrix units; a larger pass only delays the first answer
        config = self.lm.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # The cache is copied while it grows; add the answers and the activations of one layer.
        per_token = 6 * heads * size * config.num_hidden_layers * 4 + 32 * config.hidden_size
        free, _ = torch.cuda.mem_get_info(self.lm.model.device)
        return max(2048, min(1 << 17, int(0.5 * free) // int(per_token)))


def _distinct(choices: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(choice for choice in choices if choice.strip()))
    if not found:
        raise InputError("there is no title to choose from", hint="Decode freely, or give the items titles")
    return found
