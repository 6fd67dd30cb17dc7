"""The frozen text encoder that embeds answers and titles (Eq. 2-3, arXiv:2402.13840)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import is_finite
from llm4sbr.contracts.ranges import PositiveInt, Ranged
from llm4sbr.views.complete_weights import require_all_weights
from llm4sbr.views.foreign_code import check_encoder
from llm4sbr.views.identity import ModelIdentity
from llm4sbr.views.quiet import quiet_transformers
from llm4sbr.views.weights import resolve

_MANY = 2000  # texts: more take many seconds on a CPU, and a terminal shows progress


class TextEncoder(Protocol):
    """Interface between the pipeline and a text encoder."""

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the encoder; part of the views' keys."""
        ...

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as ``(n, d_t)`` float32 unit rows; a blank text gives zeros."""
        ...


class SentenceEncoder(Ranged):
    """A sentence-transformers model, float32, loaded on first use.

    A plain transformer is mean-pooled over its non-padding tokens; a model with its own pooling keeps it.
    Rows are L2-normalised. The tokenizer cuts a text beyond the model's maximum length (256 tokens for
    MiniLM). The encoder is frozen and deterministic.

    Args:
        model: Local folder, installed weights package (``all-MiniLM-L6-v2``) or hub name.
        batch_size: Number of texts per forward pass; texts are sorted by length first.
        device: Device of the model; ``auto`` takes a GPU if there is one.

    Raises:
        InputError: The model is not found or cannot be loaded.
    """

    def __init__(
        self, model: str = "all-MiniLM-L6-v2", batch_size: PositiveInt = 64, device: str = "auto"
    ) -> None:
        self.batch_size, self.device = batch_size, device
        self._weights = resolve(model)

    @property
    def identity(self) -> ModelIdentity:
        """Name and content hash of the encoder."""
        return self._weights.identity

    @cached_property
    def _model(self) -> Any:
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        check_encoder(self._weights.path)
        try:
            with quiet_transformers():
                from sentence_transformers import SentenceTransformer

                model = SentenceTransformer(
                    str(self._weights.path), device=device, local_files_only=True, trust_remote_code=False
                )
            self._require_weights(model)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the text encoder cannot be loaded: {type(error).__name__}: {error}", path=self._weights.path
            ) from error
        return model.float().eval()

    def _require_weights(self, model: Any) -> None:
        """Check the transformers inside: sentence-transformers says nothing of weights that are missing."""
        for module in model:
            inner = getattr(module, "auto_model", None)
            if inner is None:
                continue
            # The second reading takes a fraction of a second for the usual encoders.
            with quiet_transformers():
                again, info = type(inner).from_pretrained(
                    self._weights.path, config=inner.config, local_files_only=True, output_loading_info=True
                )
            require_all_weights(again, info, self._weights.path, encoder=True)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; equal texts are embedded once.

        Shapes:
            - output: ``(n, d_t)`` float32, unit rows; zeros if the text is empty or white space

        Raises:
            InputError: An embedding is not finite; the message shows the text.
        """
        place = {text: row for row, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
        dim = int(self._model.get_embedding_dimension())
        distinct = torch.zeros(len(place) + 1, dim)  # the last row stays zero, for empty texts
        if place:
            encoded = self._model.encode(
                list(place),
                batch_size=self.batch_size,
                show_progress_bar=len(place) >= _MANY and sys.stderr.isatty(),
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
            distinct[:-1] = torch.from_numpy(np.asarray(encoded, dtype=np.float32))
            if not is_finite(distinct):
                broken = int((~torch.isfinite(distinct)).any(1).nonzero()[0])
                raise InputError(
                    f"the text encoder {self.identity.name} gives an embedding that is not finite",
                    path=self._weights.path,
                    value=list(place)[broken],
                    hint="Its weights are broken: get them again, or choose another encoder",
                )
        rows = torch.tensor([place.get(text, len(place)) for text in texts], dtype=torch.long)
        return distinct[rows]
