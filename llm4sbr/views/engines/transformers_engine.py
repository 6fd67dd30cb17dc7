"""The in-process engine: prompts that begin alike share their computation, with transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import exp

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Answer, Choice, Reply
from llm4sbr.views.engines.decoding import Hypothesis, Root, Rules, decode_trees, read_root
from llm4sbr.views.engines.language_model import Dtype, LanguageModel
from llm4sbr.views.engines.prefix_tree import PrefixTree, grow_trees, shared_beginning
from llm4sbr.views.engines.title_trie import TitleTrie
from llm4sbr.views.identity import EngineIdentity, digest


class TransformersEngine:
    """Greedy or beam answers from a causal language model.

    Prompts of one call that begin alike are computed as one tree (`prefix_tree`), and what all of them begin
    with is computed once. In float32 an answer equals the one-by-one greedy answer up to ties within
    rounding; in bfloat16 two tokens of nearly equal score may swap with the company a prompt is in.

    Args:
        model: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name.
        adapter: Folder of a PEFT adapter for it, as `llm4sbr tune-llm` writes.
        max_new_tokens: A free answer is cut there.
        choices: The only answers allowed, such as the catalogue's titles; None decodes freely.
        num_answers: Answers a prompt, by beam search; 1 is greedy.
        batch_size: Prompts that one call takes well; more are shared and sorted better.
        batch_tokens: Prompt tokens of one forward pass; by default what fits the device's memory.
        dtype: See `LanguageModel`. It decides answers, so it is part of their key: name it to share a store
            between machines of both kinds.
        device: ``auto`` takes a GPU where there is one.
        device_map: Spread a large model over devices, as transformers does; instead of ``device``.

    Raises:
        InputError: The model is nowhere to be found, or an argument is out of range.
    """

    def __init__(
        self,
        model: str = "SmolLM2-135M",
        adapter: str | None = None,
        max_new_tokens: int = 24,
        choices: Sequence[str] | None = None,
        num_answers: int = 1,
        batch_size: int = 512,
        batch_tokens: int | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        device_map: str | None = None,
    ) -> None:
        if min(max_new_tokens, batch_size, num_answers, batch_tokens or 1) < 1:
            raise InputError(
                "max_new_tokens, num_answers, batch_size and batch_tokens must be at least 1",
                value=(max_new_tokens, num_answers, batch_size, batch_tokens),
            )
        self.lm = LanguageModel(model, adapter, dtype, device, device_map)
        self.max_new_tokens, self.num_answers = max_new_tokens, num_answers
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self.choices = None if choices is None else _distinct(choices)

    @property
    def batch_size(self) -> int:
        """Prompts that one call takes well."""
        return self._batch_size

    @cached_property
    def identity(self) -> EngineIdentity:
        """Weights, chat template and decoding."""
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
        """Answer every prompt, a forward pass's worth at a time, the longest first.

        Raises:
            InputError: A prompt is longer than the model reads.
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
            trees[0].new[0] += root.length  # computed once, so one prompt bears it
        while trees:
            rows = max(1, self._tokens_per_pass // max(1, len(trees[0].tokens) + len(trees[0].asked)))
            yield self._answer(trees[:rows], lengths, root)
            del trees[:rows]

    def _answer(self, trees: list[PrefixTree], lengths: list[int], root: Root | None) -> list[Reply]:
        try:
            found = decode_trees(self.lm.model, trees, self._rules, root)
        except torch.OutOfMemoryError:  # of a GPU; a smaller pass gives the same answers
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
    def _rules(self) -> Rules:
        trie = None
        if self.choices is not None:
            trie = TitleTrie(self.lm.plain(self.choices), self.lm.end_id)
        return Rules(self.max_new_tokens, self.lm.stop_ids, self.num_answers, trie)

    @cached_property
    def _tokens_per_pass(self) -> int:
        if self._batch_tokens is not None:
            return self._batch_tokens
        if self.lm.model.device.type != "cuda":
            return 2048  # fills one CPU's matrix units; more only waits longer for the first answer
        config = self.lm.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Keys and values once more while the cache grows, answers, and the activations of one layer.
        per_token = 6 * heads * size * config.num_hidden_layers * 4 + 32 * config.hidden_size
        free, _ = torch.cuda.mem_get_info(self.lm.model.device)
        return max(2048, min(1 << 17, int(0.5 * free) // int(per_token)))


def _distinct(choices: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(choice for choice in choices if choice.strip()))
    if not found:
        raise InputError("there is no title to choose from", hint="Decode freely, or give the items titles")
    return found
