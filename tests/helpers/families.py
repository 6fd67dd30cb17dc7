"""Tiny random language models of many families, built from their configuration classes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

# Small values for whatever a configuration calls its sizes; a class takes those that it knows.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width"], 32),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"], 48),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers"], 2),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads"], 4),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 4),
    **dict.fromkeys(["n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups", "n_groups"], 1),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len"], 1024),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 16),
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank", "mamba_d_head", "qk_head_dim"], 16),
    **dict.fromkeys(["head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], 8),
    **dict.fromkeys(["state_size", "mamba_d_state", "linear_key_head_dim", "linear_value_head_dim"], 8),
    **dict.fromkeys(["num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads"], 2),
    "num_experts_per_tok": 2,
    "mamba_n_heads": 4,
    "initializer_range": 0.3,  # far from uniform, so that a wrong mask changes answers
    "sliding_window": 64,
    "attention_window_size": 64,
}

_TREES = (
    "apertus arcee biogpt codegen cohere cohere2 deepseek_v2 deepseek_v3 ernie4_5 exaone4 falcon gemma "
    "gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite granitemoe helium llama "
    "llama4_text mistral mixtral nemotron olmo olmo2 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe "
    "qwen3 qwen3_moe seed_oss smollm3 stablelm starcoder2 xglm"
)
_ROWS = (
    "bamba bloom falcon_mamba jamba lfm2 mamba mamba2 minimax mpt qwen3_5_text qwen3_next recurrent_gemma "
    "rwkv"
)
TREES, ROWS = _TREES.split(), _ROWS.split()  # families that read prefix trees, and those that do not

_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "mamba_dt_rank": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "minimax": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "recurrent_gemma": {"num_hidden_layers": 3},
}


def build(family: str, tokenizer: Any, seed: int = 0, **options: Any) -> Any:
    """Build a model.

    Args:
        family: Name of the model type in transformers.
        tokenizer: Tokenizer, whose size and special tokens the model takes.
        seed: Seed of the weights.
        options: Values of the configuration.
    """
    config = CONFIG_MAPPING[family]
    known = {name for base in config.__mro__ for name in getattr(base, "__annotations__", {})}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    sizes = {**_SIZES, **special, "vocab_size": len(tokenizer)}
    taken = {name: value for name, value in sizes.items() if name in known or hasattr(config, name)}
    if family == "falcon":
        del taken["head_dim"]  # computed
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config(**{**taken, **_OWN.get(family, {}), **options})).eval()
