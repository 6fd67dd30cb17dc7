"""The LightningModule that fits a LoRA adapter to the next click's title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy

from llm4sbr.contracts.errors import InputError
from llm4sbr.tuning.losses import cross_entropy_among
from llm4sbr.tuning.packing import PackedAnswers, pack_answers
from llm4sbr.views.engines.language_model import Dtype, LanguageModel, fast_dtype
from llm4sbr.views.engines.title_trie import TitleTrie


class Lesson(NamedTuple):
    """A prompt and the title it should be answered with."""

    prompt: str
    answer: str


class TitleTuner(LightningModule):
    """LoRA (arXiv:2106.09685) on a causal language model, trained to answer a prompt with a title.

    The loss is the negative log likelihood of the title, in nats: among the catalogue's titles as decoding
    held to them sees it (`cross_entropy_among`; chance has ln V), or token by token over the vocabulary.
    The weights of the model itself stay as they are. Prompts of one step that begin alike are computed once
    (`pack_answers`).

    Args:
        model: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name.
        rank: Rank of the adapter's matrices.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: On the adapter's input.
        target_modules: Names of the linear layers that are adapted; all of them by default.
        top_layers: Adapt only so many of the last layers; the backward pass ends there, which makes a step
            cheaper. All by default.
        learning_rate: Of AdamW, reached after ``warmup_steps``, then falling along a half cosine to a tenth.
        weight_decay: Of AdamW.
        warmup_steps: Steps of linear warm-up.
        whole_titles: Learn to write titles freely, to their end. False learns to choose among the
            catalogue's titles, up to where one is told from all others: all that decoding held to the
            catalogue needs, at a third of the tokens.
        dtype: Of the frozen weights; see `LanguageModel`. The adapter is kept in float32.
    """

    def __init__(
        self,
        model: str = "SmolLM2-135M",
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.05,
        target_modules: list[str] | Literal["all-linear"] = "all-linear",
        top_layers: int | None = None,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 20,
        whole_titles: bool = False,
        dtype: Dtype = "auto",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if dtype == "auto":
            dtype = fast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.lm = LanguageModel(model, dtype=dtype, device="cpu")  # Lightning moves it
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.whole_titles = whole_titles
        self._trie: TitleTrie | None = None
        self._paths: dict[str, tuple[list[int], list[int]]] = {}  # a title's tokens and where they are chosen
        self.llm: Any = self._with_adapter(rank, alpha, dropout, target_modules, top_layers)

    @property
    def strict_loading(self) -> bool:
        """A checkpoint holds the adapter alone."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        """Lightning may set it; the frozen weights are in no checkpoint all the same."""

    def learn_titles(self, titles: Sequence[str]) -> None:
        """Tell which titles there are, and so where one is told from all others."""
        if self.whole_titles:
            return
        distinct = list(dict.fromkeys(title for title in titles if title.strip()))
        tokens = self.lm.plain(distinct)
        if len(distinct) < 2:
            raise InputError("there are no two titles to choose between", value=distinct)
        self._trie = TitleTrie(tokens, self.lm.end_id)
        for title, ids in zip(distinct, tokens, strict=True):
            self._paths[title] = self._trie.walk([*ids, self.lm.end_id])

    def pack(self, lessons: Sequence[Lesson]) -> PackedAnswers:
        """Lessons as one row for the model, on its device."""
        packed = pack_answers(
            self.lm.encode([lesson.prompt for lesson in lessons]),
            [self._answer(lesson.answer) for lesson in lessons],
        )
        return PackedAnswers(*(part.to(self.device) for part in packed))

    def forward(self, packed: PackedAnswers) -> Tensor:
        """Logits of the answers' tokens.

        Shapes:
            - output: ``(P, tokens of the vocabulary)``
        """
        output = self.llm(
            input_ids=packed.tokens,
            position_ids=packed.position,
            attention_mask=packed.mask,
            use_cache=False,
            logits_to_keep=packed.node,  # one row, so positions and not a count
        )
        logits: Tensor = output.logits[0]
        return logits

    def training_step(self, batch: list[Lesson], batch_idx: int) -> Tensor:
        """Cross-entropy over the answers' tokens."""
        return self._step(batch, "train")

    def validation_step(self, batch: list[Lesson], batch_idx: int) -> None:
        """The same on held-out sessions."""
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        """AdamW over the adapter, warmed up, then along a half cosine."""
        parameters = [value for value in self.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        warm = min(self.warmup_steps, steps)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            share = (step - warm) / max(1, steps - warm)
            return 0.55 + 0.45 * float(torch.cos(torch.tensor(torch.pi * min(1.0, share))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen weights out: they are half a gigabyte and lie in the model's own files."""
        learned = {name for name, value in self.named_parameters() if value.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name in learned}

    def _step(self, lessons: list[Lesson], stage: str) -> Tensor:
        packed = self.pack(lessons)
        logits = self(packed).float()  # (P, tokens)
        if self._trie is None:
            loss = cross_entropy(logits, packed.target, reduction="sum") / len(lessons)
        else:
            begins = packed.place.diff(prepend=packed.place.new_tensor([-1])) != 0
            order = packed.place[begins].tolist()
            nodes = np.array([node for at in order for node in self._paths[lessons[at].answer][1]])
            owner, allowed, _ = self._trie.children(nodes)
            among = (torch.from_numpy(part).to(logits.device) for part in (owner, allowed))
            loss = cross_entropy_among(logits, packed.target, *among).sum() / len(lessons)
        # Of all processes: the adapter that is kept is the best on the whole validation split.
        everywhere = stage == "val"
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(lessons), sync_dist=everywhere)
        return loss

    def _answer(self, title: str) -> list[int]:
        if title in self._paths:
            return self._paths[title][0]
        return [*self.lm.plain([title])[0], self.lm.end_id]

    def _with_adapter(
        self, rank: int, alpha: float, dropout: float, modules: Any, top_layers: int | None
    ) -> Any:
        from peft import LoraConfig, get_peft_model

        base = self.lm.base_model
        layers = base.config.get_text_config().num_hidden_layers
        if modules == "all-linear" and top_layers is not None:  # peft wants names where layers are chosen
            modules = sorted(
                {
                    name.rpartition(".")[2]
                    for name, part in base.named_modules()
                    if type(part) is torch.nn.Linear
                }
                - {"lm_head"}
            )
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=modules,
            layers_to_transform=None if top_layers is None else list(range(layers - top_layers, layers)),
            task_type="CAUSAL_LM",
        )
        return get_peft_model(base, config)
