"""Option groups of ``llm4sbr views infer``: frozen data classes, as the command line shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.engines.estimate import Prices
from llm4sbr.views.engines.language_model import Dtype, LanguageModel
from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy
from llm4sbr.views.inference.lightning import inference_trainer

Answers = Literal["free", "catalogue"]


@dataclass(frozen=True)
class Localisation:
    """How an answer becomes a view (Eq. 2-5, arXiv:2402.13840).

    Args:
        encoder: Text encoder: a folder, an installed weights package, or a hub name.
        r: Number of titles per view; 0 keeps the embedding of the answer itself.

    Raises:
        InputError: ``r`` is negative.
    """

    encoder: str = "all-MiniLM-L6-v2"
    r: NonNegativeInt = 5

    def __post_init__(self) -> None:
        check_fields(self)

    def text_encoder(self, device: str) -> SentenceEncoder:
        """Create the encoder on a device."""
        return SentenceEncoder(self.encoder, device=device)


@dataclass(frozen=True)
class LocalModel:
    """A language model that runs in this process, with transformers.

    Args:
        adapter: Folder of a PEFT adapter, as `llm4sbr tune-llm` writes.
        max_new_tokens: Maximum length of a free answer in tokens.
        num_answers: Number of answers per prompt, found by beam search; a view is then a mixture of them.
            1 decodes greedily.
        dtype: Type of the weights: auto is bfloat16 on a GPU or a CPU with AMX, else float32. It is part of
            the answers' key.
        device: Device of the model; auto takes a GPU if there is one.
        device_map: Placement of a large model over several devices, as in transformers; replaces device.
        batch_size: Number of prompts per call of the engine.
        batch_tokens: Prompt tokens of one forward pass; by default as many as fit the device's memory.
        template_kwargs: Variables of the chat template, such as {reasoning_effort: low}. enable_thinking is
            false by default where the template knows it.

    Raises:
        InputError: A number is below 1.
    """

    adapter: str | None = None
    max_new_tokens: PositiveInt = 24
    num_answers: PositiveInt = 1
    dtype: Dtype = "auto"
    device: str = "auto"
    device_map: str | None = None
    batch_size: PositiveInt = 512
    batch_tokens: PositiveInt | None = None
    template_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def engine(self, model: str, choices: Sequence[str] | None) -> Engine:
        """Create the engine; ``choices`` are the allowed answers, None allows any."""
        from llm4sbr.views.engines.transformers_engine import TransformersEngine

        return TransformersEngine(
            LanguageModel(
                model, self.adapter, self.dtype, self.device, self.device_map, self.template_kwargs
            ),
            max_new_tokens=self.max_new_tokens,
            choices=choices,
            num_answers=self.num_answers,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
        )


@dataclass(frozen=True)
class Server:
    """Servers with the OpenAI protocol, used instead of a local model if an address is given.

    The API key is read from OPENAI_API_KEY.

    Args:
        base_url: Address up to and including /v1; several, separated by commas, share the work.
        max_new_tokens: Maximum length of an answer in tokens.
        concurrency: Number of concurrent requests.
        timeout: Seconds for one request.
        retries: Further attempts at a prompt after an incomplete or missing answer.
        revision: Any label; change it when the server's weights or chat template change.
        template_kwargs: Variables of the server's chat template, sent as chat_template_kwargs:
            {enable_thinking: false} switches off the thoughts of Qwen3 on vLLM, SGLang and llama.cpp.
        extra_body: Further fields of each request.
        price_in: Price of a million prompt tokens, for the cost of a dry run.
        price_out: Price of a million answer tokens.

    Raises:
        InputError: A number is out of range.
    """

    base_url: str | None = None
    max_new_tokens: PositiveInt = 24
    concurrency: PositiveInt = 32
    timeout: PositiveFloat = 60.0
    retries: NonNegativeInt = 6
    revision: str | None = None
    template_kwargs: dict[str, Any] | None = None
    extra_body: dict[str, Any] | None = None
    price_in: NonNegativeFloat | None = None
    price_out: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def prices(self) -> Prices:
        """Prices of the tokens."""
        return Prices(self.price_in, self.price_out)

    def engine(self, model: str, choices: Sequence[str] | None) -> Engine:
        """Create the engine.

        Raises:
            InputError: ``choices`` are given: the protocol cannot constrain answers to the catalogue.
        """
        assert self.base_url is not None
        if choices is not None:
            raise InputError(
                "answers from a server cannot be constrained to the catalogue",
                hint="Leave out --answers catalogue: localisation grounds free answers in the catalogue",
            )
        template = {"chat_template_kwargs": self.template_kwargs} if self.template_kwargs else {}
        return OpenAIEngine(
            model,
            self.base_url,
            max_new_tokens=self.max_new_tokens,
            concurrency=self.concurrency,
            retry=RetryPolicy(self.retries, self.timeout),
            revision=self.revision,
            extra_body={**template, **(self.extra_body or {})} or None,
        )


@dataclass(frozen=True)
class Processes:
    """Several processes, on one or more machines, started by Lightning.

    Args:
        devices: Number of processes on each machine: one per GPU, or any number on the CPU.
        num_nodes: Number of machines; they share the store's folder.
        strategy: Strategy of Lightning; auto is ddp for several processes.
        progress: Whether the first process shows a progress bar.

    Raises:
        InputError: A number is below 1.
    """

    devices: PositiveInt = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    progress: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def trainer(self, device: str) -> Trainer:
        """Create the trainer whose `predict` runs the queries; ``device`` is the model's device."""
        accelerator = "cpu" if device == "cpu" else "auto"
        return inference_trainer(accelerator, self.devices, self.num_nodes, self.strategy)
