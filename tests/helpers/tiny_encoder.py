"""A text encoder in a few hundred kilobytes: two random layers, in sentence-transformers' form."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_llm import TEXT
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make(folder: Path, seed: int = 0, **config: int) -> Path:
    """Write model and tokenizer to a folder without a ``modules.json``: mean pooling is then the default.

    Args:
        folder: Where to.
        seed: Seed of the weights.
        config: Settings of `BertConfig` that replace those here.
    """
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    pieces.train_from_iterator(TEXT, trainer)
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        **dict(
            zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True)
        ),
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "initializer_range": 0.3}
    BertModel(BertConfig(**{**settings, **sizes, **config})).save_pretrained(folder)
    return folder
