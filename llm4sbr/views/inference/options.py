"""Options of ``llm4sbr views infer`` that belong together, as the command line groups them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Engine
from llm4sbr.views.engines.language_model import Dtype
from llm4sbr.views.inference.lightning import inference_trainer

Answers = Literal["free", "catalogue"]


@dataclass(frozen=True)
class LocalModel:
    """A language model that runs in this process, with transformers.

    Args:
        adapter: Folder of a PEFT adapter, as `llm4sbr tune-llm` writes.
        num_answers: Answers a prompt, by beam search; a view is then a mixture of them. 1 is greedy.
        dtype: auto is bfloat16 on a GPU or a CPU with AMX, else float32; it is part of the answers' key.
        device: auto takes a GPU where there is one.
        device_map: Spread a large model over devices as transformers does; instead of device.
        batch_tokens: Prompt tokens of one forward pass; by default what fits the device's memory.
    """

    adapter: str | None = None
    num_answers: int = 1
    dtype: Dtype = "auto"
    device: str = "auto"
    device_map: str | None = None
    batch_tokens: int | None = None

    def engine(
        self, model: str, max_new_tokens: int, batch_size: int | None, choices: Sequence[str] | None
    ) -> Engine:
        """The engine; ``choices`` are the only answers allowed, None allows any."""
        from llm4sbr.views.engines.transformers_engine import TransformersEngine

        return TransformersEngine(
            model,
            self.adapter,
            max_new_tokens,
            choices,
            self.num_answers,
            batch_size or 512,
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
        concurrency: Requests under way at a time.
        timeout: Seconds for one request.
        retries: Further tries of a prompt that got no answer or half of one.
        revision: Any label; change it when the server's weights or chat template change.
        extra_body: More fields of each request.
    """

    base_url: str | None = None
    concurrency: int = 32
    timeout: float = 60.0
    retries: int = 6
    revision: str | None = None
    extra_body: dict[str, Any] | None = None

    def engine(self, model: str, max_new_tokens: int, choices: Sequence[str] | None) -> Engine:
        """The engine.

        Raises:
            InputError: Answers are to be held to the catalogue: the protocol has no such request.
        """
        from llm4sbr.views.engines.openai_engine import OpenAIEngine

        assert self.base_url is not None
        if choices is not None:
            raise InputError(
                "answers from a server cannot be held to the catalogue",
                hint="Leave out --answers catalogue: localisation grounds free answers",
            )
        return OpenAIEngine(
            model,
            self.base_url,
            max_new_tokens=max_new_tokens,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
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
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def trainer(self, device: str) -> Trainer:
        """The trainer whose `predict` asks; ``device`` is the model's."""
        accelerator = "cpu" if device == "cpu" else "auto"
        return inference_trainer(accelerator, self.devices, self.num_nodes, self.strategy)
