"""In-process engine on transformers: prompts with a common prefix share its computation."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import exp
from typing import TypeVar

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, Ranged
from llm4sbr.views.engines import Answer, Choice, Failure, Reply
from llm4sbr.views.engines.decoding import decode_trees, read_root
from llm4sbr.views.engines.language_model import Dtype, LanguageModel
from llm4sbr.views.engines.padded import decode_rows
from llm4sbr.views.engines.prefix_tree import PrefixTree, grow_trees, shared_beginning
from llm4sbr.views.engines.search import DecodingOptions, Hypothesis
from llm4sbr.views.engines.thoughts import NOTHING_ELSE, UNFINISHED, without_thoughts
from llm4sbr.views.engines.title_trie import TitleTrie
from llm4sbr.views.identity import EngineIdentity, digest

_log = logging.getLogger(__name__)
T = TypeVar("T")


class TransformersEngine(Ranged):
    """Greedy or beam-search answers from a causal language model.

    Prompts of one call that share a prefix form one tree (`prefix_tree`), and the prefix common to all of
    them is computed once. A model whose layers follow no attention mask (Mamba, Qwen3.5, LFM2), and prompts
    beyond a model's sliding window, go through padded batches instead (`padded`). In float32 an answer equals
    the one-by-one greedy answer up to ties within rounding; in bfloat16 two tokens of nearly equal score may
    swap depending on the batch's other prompts.

    Args:
        model: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name; or a
            `LanguageModel`, which replaces ``adapter``, ``dtype``, ``device`` and ``device_map``.
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
        model: str | LanguageModel = "SmolLM2-135M",
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
        if isinstance(model, str):
            model = LanguageModel(model, adapter, dtype, device, device_map)
        self.lm = model
        self.max_new_tokens, self.num_answers = max_new_tokens, num_answers
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self.choices = None if choices is None else _distinct(choices)
        self._cost_told = False

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
        if options := self.lm.template_options:
            decoding["template"] = json.dumps(options, sort_keys=True)
        if self.num_answers > 1:
            decoding["num_answers"] = self.num_answers
        if self.choices is None:
            decoding["max_new_tokens"] = self.max_new_tokens
        else:
            decoding["choices"] = digest(sorted(self.choices))
        return EngineIdentity(self.lm.identity, decoding, self.lm.chat_template, self.lm.adapter_identity)

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        """Answer every prompt, one forward pass's batch at a time, largest trees or prompts first.

        Raises:
            InputError: A prompt exceeds the model's context length.
        """
        if not prompts:
            return
        tokens = self.lm.encode(prompts)
        trie = self._decoding.trie
        longest = max(map(len, tokens)) + (self.max_new_tokens if trie is None else trie.depth)
        self.lm.check_length(longest)
        if self.lm.reads_trees and longest <= self.lm.window:
            yield from self._by_trees(tokens)
        else:
            self._tell_cost(tokens)
            yield from self._by_rows(tokens)

    def _by_trees(self, tokens: list[list[int]]) -> Iterator[list[Reply]]:
        shared = shared_beginning(tokens)
        root = read_root(self.lm.model, tokens[0][:shared])
        lengths = [len(one) for one in tokens]
        trees = sorted(grow_trees(tokens, skip=shared), key=lambda tree: -len(tree.tokens))
        if root is not None:
            trees[0].new[0] += root.length  # computed once: count it for one prompt

        def answer(part: list[PrefixTree]) -> list[Reply]:
            found = decode_trees(self.lm.model, part, self._decoding, root)
            return [
                Reply(int(place), self._reply(best, lengths[place], int(new)))
                for tree, answers in zip(part, found, strict=True)
                for place, new, best in zip(tree.place, tree.new, answers, strict=True)
            ]

        while trees:
            rows = max(1, self._tokens_per_pass // max(1, len(trees[0].tokens) + len(trees[0].last)))
            yield self._within_memory(answer, trees[:rows])
            del trees[:rows]

    def _by_rows(self, tokens: list[list[int]]) -> Iterator[list[Reply]]:
        places = sorted(range(len(tokens)), key=lambda place: -len(tokens[place]))

        def answer(part: list[int]) -> list[Reply]:
            rows = [tokens[place] for place in part]
            found = decode_rows(self.lm.model, rows, self._decoding, 0, self.lm.keeps_cache)
            return [
                Reply(place, self._reply(best, len(tokens[place]), len(tokens[place])))
                for place, best in zip(part, found, strict=True)
            ]

        while places:
            width = len(tokens[places[0]])
            part = places[: max(1, self._tokens_per_pass // (width * self.num_answers))]
            if not self.lm.reads_padding:
                part = [place for place in part if len(tokens[place]) == width]
            yield self._within_memory(answer, part)
            del places[: len(part)]

    def _within_memory(self, answer: Callable[[list[T]], list[Reply]], batch: list[T]) -> list[Reply]:
        try:
            return answer(batch)
        except torch.OutOfMemoryError:  # on a GPU; a smaller pass gives the same answers
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            self._tokens_per_pass //= 2
            half = len(batch) // 2
            return [*self._within_memory(answer, batch[:half]), *self._within_memory(answer, batch[half:])]

    def _tell_cost(self, tokens: list[list[int]]) -> None:
        if self._cost_told:
            return
        self._cost_told = True
        shared = shared_beginning(tokens)
        computed = shared + sum(int(tree.new.sum()) for tree in grow_trees(tokens, skip=shared))
        _log.warning(
            "%s shares no computation between prompts, since %s: it computes %.1f times the prompt "
            "tokens that other models do",
            self.lm.identity.name,
            f"some exceed its attention window of {self.lm.window:.0f} tokens"
            if self.lm.reads_trees
            else "its layers follow no attention mask",
            sum(map(len, tokens)) / computed,
        )

    def _reply(self, best: list[Hypothesis], prompt_tokens: int, computed: int) -> Answer | Failure:
        texts = [self._text(one) for one in best]
        said = [(text, one) for text, one in zip(texts, best, strict=True) if text is not None]
        if not said:
            return Failure(NOTHING_ELSE if best[0].finished else UNFINISHED)
        text, first = said[0]
        choices = tuple(Choice(text, exp(one.score)) for text, one in said) if self.num_answers > 1 else ()
        return Answer(text, prompt_tokens, computed, len(first.tokens), first.finished, choices)

    def _text(self, one: Hypothesis) -> str | None:
        """Text of an answer; None if it is nothing but thoughts."""
        if self.choices is not None:
            return self.choices[one.choice]
        tokenizer = self.lm.tokenizer
        whole = str(tokenizer.decode(one.tokens)).strip()  # some models mark thoughts with control tokens
        said = without_thoughts(whole, self.lm.opens_thoughts)
        if said == whole:
            return str(tokenizer.decode(one.tokens, skip_special_tokens=True)).strip()
        for token in tokenizer.all_special_tokens:
            said = (said or "").replace(token, "")
        return (said or "").strip() or None

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
        all_heads = getattr(config, "num_attention_heads", None) or 1  # a recurrent model may have none
        heads = getattr(config, "num_key_value_heads", None) or all_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // all_heads
        # The cache is copied while it grows; add the answers and the activations of one layer.
        per_token = 6 * heads * size * config.num_hidden_layers * 4 + 32 * config.hidden_size
        free, _ = torch.cuda.mem_get_info(self.lm.model.device)
        return max(2048, min(1 << 17, int(0.5 * free) // int(per_token)))


def _distinct(choices: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(choice for choice in choices if choice.strip()))
    if not found:
        raise InputError("there is no title to choose from", hint="Decode freely, or give the items titles")
    return found
