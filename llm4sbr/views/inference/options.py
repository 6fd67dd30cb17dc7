"""Options of ``llm4sbr views infer`` that belong together: frozen groups, as the command line shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.engines.language_model import Dtype
from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy
from llm4sbr.views.inference.lightning import inference_trainer

Answers = Literal["free", "catalogue"]


@dataclass(frozen=True)
class Localisation:
    """How an answer becomes a view (Eq. 2-5, arXiv:2402.13840).

    Args:
        encoder: Text encoder: a folder, an installed weights package, or a hub name.
        r: Titles per view; 0 keeps the answer's own embedding.

    Raises:
        InputError: ``r`` is negative.
    """

    encoder: str = "all-MiniLM-L6-v2"
    r: int = 5

    def __post_init__(self) -> None:
        if self.r < 0:
            raise InputError("localise.r must not be negative", value=self.r)

    def text_encoder(self, device: str) -> SentenceEncoder:
        """The encoder, on a device."""
        return SentenceEncoder(self.encoder, device=device)


@dataclass(frozen=True)
class LocalModel:
    """A language model that runs in this process, with transformers.

    Args:
        adapter: Folder of a PEFT adapter, as `llm4sbr tune-llm` writes.
        max_new_tokens: A free answer is cut there.
        num_answers: Answers a prompt, by beam search; a view is then a mixture of them. 1 is greedy.
        dtype: auto is bfloat16 on a GPU or a CPU with AMX, else float32; it is part of the answers' key.
        device: auto takes a GPU where there is one.
        device_map: Spread a large model over devices as transformers does; instead of device.
        batch_size: Prompts that the engine is given at a time.
        batch_tokens: Prompt tokens of one forward pass; by default what fits the device's memory.

    Raises:
        InputError: A number is below 1.
    """

    adapter: str | None = None
    max_new_tokens: int = 24
    num_answers: int = 1
    dtype: Dtype = "auto"
    device: str = "auto"
    device_map: str | None = None
    batch_size: int = 512
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        _at_least_one("local", self, "max_new_tokens", "num_answers", "batch_size", "batch_tokens")

    def engine(self, model: str, choices: Sequence[str] | None) -> Engine:
        """The engine; ``choices`` are the only answers allowed, None allows any."""
        from llm4sbr.views.engines.transformers_engine import TransformersEngine

        return TransformersEngine(
            model,
            self.adapter,
            self.max_new_tokens,
            choices,
            self.num_answers,
            self.batch_size,
            self.batch_tokens,
            self.dtype,
            self.device,
            self.device_map,
        )


@dataclass(frozen=True)
class Server:
    """Servers that speak the OpenAI protocol; where an address is given, they are asked.

    The key is read from OPENAI_API_KEY.

    Args:
        base_url: Address up to and including /v1; several, separated by commas, share the work.
        max_new_tokens: An answer is cut there.
        concurrency: Requests under way at a time.
        timeout: Seconds for one request.
        retries: Further tries of a prompt that got no answer or half of one.
        revision: Any label; change it when the server's weights or chat template change.
        extra_body: More fields of each request.

    Raises:
        InputError: A number is out of range.
    """

    base_url: str | None = None
    max_new_tokens: int = 24
    concurrency: int = 32
    timeout: float = 60.0
    retries: int = 6
    revision: str | None = None
    extra_body: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _at_least_one("server", self, "max_new_tokens", "concurrency")
        RetryPolicy(self.retries, self.timeout)  # refuses what is out of range

    def engine(self, model: str, choices: Sequence[str] | None) -> Engine:
        """The engine.

        Raises:
            InputError: Answers are to be held to the catalogue: the protocol has no such request.
        """
        assert self.base_url is not None
        if choices is not None:
            raise InputError(
                "answers from a server cannot be held to the catalogue",
                hint="Leave out --answers catalogue: localisation grounds free answers",
            )
        return OpenAIEngine(
            model,
            self.base_url,
            max_new_tokens=self.max_new_tokens,
            concurrency=self.concurrency,
            retry=RetryPolicy(self.retries, self.timeout),
            revision=self.revision,
            extra_body=self.extra_body,
        )


@dataclass(frozen=True)
class Processes:
    """Several processes, on one machine or more, started by Lightning.

    Args:
        devices: Processes on each machine: one for each GPU, or so many on the CPU.
        num_nodes: Machines; they share the store's folder.
        strategy: Of Lightning's; auto is ddp where there are several processes.
        progress: The first process shows a bar.

    Raises:
        InputError: A number is below 1.
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    progress: bool = True

    def __post_init__(self) -> None:
        _at_least_one("processes", self, "devices", "num_nodes")

    def trainer(self, device: str) -> Trainer:
        """The trainer whose `predict` asks; ``device`` is the model's."""
        accelerator = "cpu" if device == "cpu" else "auto"
        return inference_trainer(accelerator, self.devices, self.num_nodes, self.strategy)


def _at_least_one(group: str, options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{group}.{name} is at least 1", value=value)
