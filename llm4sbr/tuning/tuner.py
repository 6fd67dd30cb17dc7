"""The LightningModule that trains a LoRA adapter to predict the title of a following click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite
from llm4sbr.contracts.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, Ranged
from llm4sbr.tuning.lora import LoRA
from llm4sbr.tuning.losses import cross_entropy_among
from llm4sbr.tuning.packing import PackedAnswers, pack_answers
from llm4sbr.views.engines.decoding import tree_mask
from llm4sbr.views.engines.language_model import Dtype, LanguageModel, fast_dtype
from llm4sbr.views.engines.title_trie import TitleTrie

_LORA = LoRA()


class TrainingText(NamedTuple):
    """A prompt and the title that is its answer."""

    prompt: str
    answer: str


class TitleTuner(Ranged, LightningModule):
    """LoRA (arXiv:2106.09685) on a causal language model, trained to answer a prompt with a title.

    The loss is the negative log likelihood of the title, in nats: among the catalogue's titles, as in
    decoding constrained to them (`cross_entropy_among`; a random guess has ln V), or token by token over the
    vocabulary. The weights of the model itself are frozen. Common prefixes of the prompts of one step are
    computed once (`pack_answers`).

    Args:
        model: Local folder or ``.gguf`` file, installed weights package (``SmolLM2-135M``), or hub name.
        lora: Size and target layers of the adapter.
        learning_rate: Peak learning rate of AdamW, reached after ``warmup_steps``; it then decays along a
            half cosine to a tenth.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Number of steps of linear warm-up.
        whole_titles: Whether to learn to write titles freely, to their end. False learns to choose among the
            catalogue's titles, up to the token that distinguishes one from all others. That is enough for
            decoding constrained to the catalogue, at a third of the tokens.
        dtype: Type of the frozen weights; see `LanguageModel`. The adapter is kept in float32.

    Raises:
        InputError: The model is not found, or a number is out of range.
    """

    def __init__(
        self,
        model: str = "SmolLM2-135M",
        lora: LoRA = _LORA,
        learning_rate: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.0,
        warmup_steps: NonNegativeInt = 20,
        whole_titles: bool = False,
        dtype: Dtype = "auto",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if dtype == "auto":
            dtype = fast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.lm = LanguageModel(model, dtype=dtype, device="cpu")  # Lightning moves it to the device
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.whole_titles = whole_titles
        self._trie: TitleTrie | None = None
        self._paths: dict[str, tuple[list[int], list[int]]] = {}  # title → its tokens, their trie nodes
        if not self.lm.reads_trees:
            raise InputError(
                "this language model cannot be tuned: its layers follow no attention mask",
                value=model,
                hint="Take a model of attention layers, such as SmolLM2 or Qwen3",
            )
        self.llm: Any = lora.adapt(self.lm.base_model)

    @property
    def strict_loading(self) -> bool:
        """False, since a checkpoint contains only the adapter."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        """Ignore the value that Lightning may set: no checkpoint contains the frozen weights."""

    def learn_titles(self, titles: Sequence[str]) -> None:
        """Build the trie of the titles, which defines the tokens to learn; no effect with ``whole_titles``.

        Raises:
            InputError: There are fewer than two distinct titles.
        """
        if self.whole_titles:
            return
        distinct = list(dict.fromkeys(title for title in titles if title.strip()))
        tokens = self.lm.plain(distinct)
        if len(distinct) < 2:
            raise InputError("there must be at least two distinct titles", value=distinct)
        self._trie = TitleTrie(tokens, self.lm.end_id)
        for title, ids in zip(distinct, tokens, strict=True):
            self._paths[title] = self._trie.walk([*ids, self.lm.end_id])

    def pack(self, texts: Sequence[TrainingText]) -> PackedAnswers:
        """Pack prompts and answers into one row of the batch, on the model's device."""
        prompts = self.lm.encode([text.prompt for text in texts])
        answers = [self._answer(text.answer) for text in texts]
        longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        self.lm.check_length(longest)
        if longest > self.lm.window:
            raise InputError(
                f"{longest} tokens of prompt and answer exceed the attention window of {self.lm.window:.0f}",
                hint="Show fewer items (--prompts.max_items) or shorter titles (--prompts.max_title_chars)",
            )
        packed = pack_answers(prompts, answers)
        return PackedAnswers(*(part.to(self.device) for part in packed))

    def forward(self, packed: PackedAnswers) -> Tensor:
        """Compute the logits of the answers' tokens.

        Shapes:
            - output: ``(P, tokens of the vocabulary)``
        """
        output = self.llm(
            input_ids=packed.tokens,
            position_ids=packed.position,
            attention_mask=tree_mask(self.lm.base_model, packed.mask),
            use_cache=False,
            logits_to_keep=packed.node,  # indices, as the batch has one row
        )
        logits: Tensor = output.logits[0]
        return logits

    def training_step(self, batch: list[TrainingText], batch_idx: int) -> Tensor:
        """Compute the cross-entropy over the answers' tokens."""
        return self._step(batch, "train")

    def validation_step(self, batch: list[TrainingText], batch_idx: int) -> None:
        """Log the cross-entropy on held-out sessions."""
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        """Configure AdamW for the adapter, with a linear warm-up and a half-cosine decay."""
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
        """Remove the frozen weights: they take half a gigabyte and are in the model's own files."""
        learned = {name for name, value in self.named_parameters() if value.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name in learned}

    def _step(self, texts: list[TrainingText], stage: str) -> Tensor:
        packed = self.pack(texts)
        logits = self(packed).float()  # (P, tokens)
        if self._trie is None:
            loss = cross_entropy(logits, packed.target, reduction="sum") / len(texts)
        else:
            begins = packed.place.diff(prepend=packed.place.new_tensor([-1])) != 0
            order = packed.place[begins].tolist()
            nodes = np.array([node for at in order for node in self._paths[texts[at].answer][1]])
            owner, allowed, _ = self._trie.children(nodes)
            among = (torch.from_numpy(part).to(logits.device) for part in (owner, allowed))
            loss = cross_entropy_among(logits, packed.target, *among).sum() / len(texts)
        if stage == "train":
            require_finite(
                loss.detach(),
                f"the loss of step {self.global_step + 1}",
                hint="Tune with a lower --model.learning_rate, or keep the weights in float32",
            )
        # Average over all processes: the best adapter is chosen on the whole validation split.
        everywhere = stage == "val"
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(texts), sync_dist=everywhere)
        return loss

    def _answer(self, title: str) -> list[int]:
        if title in self._paths:
            return self._paths[title][0]
        return [*self.lm.plain([title])[0], self.lm.end_id]
