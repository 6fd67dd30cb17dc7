"""A causal language model with its tokenizer and chat template, for inference and tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import recover_folder
from llm4sbr.contracts.finite import require_finite_state
from llm4sbr.views.complete_weights import require_all_weights, require_same_names
from llm4sbr.views.engines.probes import keeps_cache, reads_padding, reads_trees
from llm4sbr.views.engines.thoughts import is_open, template_options
from llm4sbr.views.foreign_code import check_adapter
from llm4sbr.views.identity import ModelIdentity
from llm4sbr.views.quiet import quiet_transformers
from llm4sbr.views.weights import fingerprint, model_folder, resolve

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_SLOT = "\u2063user-text\u2063"  # placeholder of the prompt while the chat template is rendered


class LanguageModel:
    """A causal language model whose weights load on first use; the constructor only hashes their files.

    Args:
        name: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name.
        adapter: Folder of a PEFT adapter, merged into the weights.
        dtype: Type of the weights; ``auto`` is bfloat16 if the hardware multiplies it fast (a GPU that
            supports it, a CPU with AMX), else float32.
        device: Device of the model; ``auto`` takes a GPU if there is one.
        device_map: Placement of a large model over several devices, as in transformers (``auto``,
            ``balanced``, …); replaces ``device``.
        template_kwargs: Variables of the chat template. Where it knows ``enable_thinking``, that is False by
            default: thoughts are no titles.

    Raises:
        InputError: The model or the adapter is not found.
    """

    def __init__(
        self,
        name: str = "SmolLM2-135M",
        adapter: str | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        device_map: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._template_kwargs = template_kwargs
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device, self.device_map = torch.device(device), device_map
        self.dtype = fast_dtype(self.device) if dtype == "auto" else dtype
        self.weights = resolve(name)
        self.adapter = None if adapter is None else Path(adapter)
        if self.adapter is not None:
            recover_folder(self.adapter)  # after a kill of `llm4sbr tune-llm`
        if self.adapter is not None and not (self.adapter / "adapter_config.json").is_file():
            raise InputError(
                "a PEFT adapter needs an adapter_config.json",
                path=self.adapter,
                hint="Point to the folder that `llm4sbr tune-llm` wrote",
            )

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the base model."""
        return self.weights.identity

    @cached_property
    def adapter_identity(self) -> ModelIdentity | None:
        """Identity of the adapter, by content; None without one."""
        if self.adapter is None:
            return None
        return ModelIdentity(self.adapter.name, fingerprint(self.adapter))

    @property
    def chat_template(self) -> str:
        """Text of the chat template; empty for a model without one."""
        return str(self.tokenizer.chat_template or "")

    @cached_property
    def template_options(self) -> dict[str, Any]:
        """Variables that the chat template gets besides the messages."""
        return template_options(self.chat_template, self._template_kwargs)

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Tokenise prompts inside the chat template; control tokens in a prompt are plain text."""
        before, after = self.frame
        return [[*before, *tokens, *after] for tokens in self.plain(prompts)]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts without control tokens."""
        if not texts:
            return []
        tokens: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return tokens

    def check_length(self, tokens: int) -> None:
        """Check a number of tokens against the model's context length.

        Raises:
            InputError: The number exceeds the model's context length.
        """
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and tokens > limit:
            raise InputError(
                f"{tokens} tokens of prompt and answer do not fit the model's {limit}",
                hint="Show fewer items (--prompts.max_items) or shorter titles (--prompts.max_title_chars)",
            )

    @cached_property
    def window(self) -> float:
        """Largest number of tokens for which every layer sees the whole text; infinite for most models."""
        config = self.model.config.get_text_config()
        sizes = [getattr(config, "attention_chunk_size", None)]
        if getattr(config, "use_sliding_window", True):
            sizes.append(getattr(config, "sliding_window", None))
        return min((size for size in sizes if size), default=inf)

    @cached_property
    def reads_trees(self) -> bool:
        """Whether prompts that begin alike can share their computation."""
        return reads_trees(self.model)

    @cached_property
    def keeps_cache(self) -> bool:
        """Whether a padded batch can keep what the model has computed for its rows."""
        return keeps_cache(self.model)

    @cached_property
    def reads_padding(self) -> bool:
        """Whether prompts of different lengths can share a padded batch."""
        return reads_padding(self.model, self.keeps_cache)

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """Tokens before and after the user's text, from the chat template."""
        tokenizer = self.tokenizer
        if not tokenizer.chat_template:
            bos = tokenizer.bos_token_id
            return ([] if bos is None else [bos]), tokenizer("\n", add_special_tokens=False).input_ids
        before, after = (tokenizer(part, add_special_tokens=False).input_ids for part in self._chat)
        return before, after

    @cached_property
    def opens_thoughts(self) -> bool:
        """Whether the chat template itself begins the model's thoughts, as DeepSeek-R1's does."""
        return bool(self.tokenizer.chat_template) and is_open(self._chat[1])

    @cached_property
    def _chat(self) -> list[str]:
        try:
            chat = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": _SLOT}],
                tokenize=False,
                add_generation_prompt=True,
                **self.template_options,
            )
        except (ValueError, TypeError, KeyError, TemplateError) as error:
            raise InputError(
                f"the model's chat template cannot be applied: {error}",
                path=self.weights.path,
                value=self.template_options or None,
            ) from error
        if chat.count(_SLOT) != 1:
            raise InputError(
                "the model's chat template must show the user's text exactly once", path=self.weights.path
            )
        return list(chat.split(_SLOT))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(token for token in (*ids, self.tokenizer.eos_token_id) if token is not None)

    @property
    def end_id(self) -> int:
        """The token that ends the assistant's turn."""
        own = self.tokenizer.eos_token_id
        return int(own) if own is not None else min(self.stop_ids)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        with quiet_transformers():
            from transformers import AutoTokenizer

            return self._load(AutoTokenizer)

    @cached_property
    def base_model(self) -> Any:
        """The model without its adapter, on its device, in evaluation mode."""
        options: dict[str, Any] = {"dtype": getattr(torch, self.dtype)}
        if self.device_map is not None:
            options["device_map"] = self.device_map
        with quiet_transformers():
            from transformers import AutoModelForCausalLM

            model, info = self._load(AutoModelForCausalLM, output_loading_info=True, **options)
        require_all_weights(model, info, self.weights.path)
        return (model if self.device_map is not None else model.to(self.device)).eval()

    @cached_property
    def model(self) -> Any:
        """The model with its adapter merged.

        Raises:
            InputError: The adapter belongs to another model.
        """
        return self.base_model if self.adapter is None else self._adapted()

    def _adapted(self) -> Any:
        from peft import PeftModel
        from peft.utils.save_and_load import get_peft_model_state_dict, load_peft_weights

        assert self.adapter is not None
        check_adapter(self.adapter)
        try:
            adapted = PeftModel.from_pretrained(self.base_model, str(self.adapter))
            tensors = load_peft_weights(str(self.adapter), device="cpu")
            expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            require_same_names(tensors, expected, self.adapter)
            require_finite_state(tensors, finite=frozenset(tensors), path=self.adapter)
            return adapted.merge_and_unload().eval()
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the adapter cannot be loaded onto {self.identity.name}: {type(error).__name__}: {error}",
                path=self.adapter,
                hint="An adapter fits only the model that it was tuned for",
            ) from error

    def _load(self, auto: Any, **options: Any) -> Any:
        folder = model_folder(self.weights)
        try:
            return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        except Exception as error:
            raise InputError(
                f"the language model cannot be loaded: {type(error).__name__}: {error}",
                path=folder,
                hint="If this folder is in the llm4sbr cache, delete it: it is created again",
            ) from error


def fast_dtype(device: torch.device) -> Literal["float32", "bfloat16"]:
    """Select bfloat16 if it is faster; measured on an AMX CPU: 9 prompts/s against 2 in float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False):
        return "bfloat16"
    return "float32"
