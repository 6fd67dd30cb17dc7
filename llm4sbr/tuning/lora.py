"""A low-rank adapter (LoRA, Hu et al., ICLR 2022, arXiv:2106.09685) on a causal language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, Rate, check_fields


@dataclass(frozen=True)
class LoRA:
    """Size and target layers of the adapter.

    Args:
        rank: Rank of the adapter's matrices.
        alpha: Scale of the update, which is multiplied by ``alpha / rank``.
        dropout: Dropout probability of the adapter's input.
        target_modules: Names of the linear layers to adapt; all of them by default.
        top_layers: Number of last layers to adapt, all by default. The backward pass ends there, which makes
            a step cheaper.

    Raises:
        InputError: A number is out of range.
    """

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Rate = 0.05
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    top_layers: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def adapt(self, model: Any) -> Any:
        """Add the adapter to a model and freeze the model's weights.

        Args:
            model: A causal language model of transformers.

        Raises:
            InputError: The model has fewer layers than ``top_layers``.
        """
        from peft import LoraConfig, get_peft_model

        layers = model.config.get_text_config().num_hidden_layers
        if self.top_layers is not None and self.top_layers > layers:
            raise InputError(
                f"lora.top_layers is too large: the model has {layers} layers", value=self.top_layers
            )
        modules: Any = self.target_modules
        if (
            modules == "all-linear" and self.top_layers is not None
        ):  # peft needs module names if layers are selected
            linear = (name for name, part in model.named_modules() if type(part) is torch.nn.Linear)
            modules = sorted({name.rpartition(".")[2] for name in linear} - {"lm_head"})
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=modules,
            layers_to_transform=None
            if self.top_layers is None
            else list(range(layers - self.top_layers, layers)),
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, config)


# A checkpoint's hyper-parameters contain a LoRA, and checkpoints are read with ``weights_only=True``.
torch.serialization.add_safe_globals([LoRA])
