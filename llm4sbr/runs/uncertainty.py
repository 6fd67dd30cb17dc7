"""Uncertainty of a trained model about the next click of many sessions, computed without the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule

from llm4sbr.contracts.batch import batch_prefixes
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.uncertainty import entropy

_MOST_SESSIONS = 512  # largest batch for a small catalogue


@torch.inference_mode()
def session_entropies(
    model: LightningModule,
    sessions: Mapping[bytes, tuple[int, ...]],
    num_items: int,
    *,
    scores_at_once: int = 1 << 23,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[bytes, float]:
    """Compute the entropy of a trained model's next click for each session, on the model's device.

    The batches are made of the prefixes alone: no target reaches the model, every distinct session is scored
    once, and the same sessions make the same batches in any order of the input.

    Args:
        model: Model whose forward pass maps a `SessionBatch` to scores ``(B, V)``.
        sessions: Prefixes, oldest click first, by content key.
        num_items: Number of items ``V``.
        scores_at_once: Largest number of scores (float32) in memory at a time, but at least those of one
            session; 32 MiB by default, and the softmax needs the same again.
        advance: Function that receives the number of sessions of each batch.

    Raises:
        InputError: The model scores another number of items, or its scores are not finite.
    """
    size = max(1, min(_MOST_SESSIONS, scores_at_once // num_items))
    # Sorted by length, so a batch has little padding.
    order = sorted(sessions, key=lambda key: (len(sessions[key]), key))
    found: dict[bytes, float] = {}
    was_training = model.training
    model.eval()  # dropout would make the choice of sessions random
    try:
        for begin in range(0, len(order), size):
            keys = order[begin : begin + size]
            scores = model(move_data_to_device(batch_prefixes([sessions[key] for key in keys]), model.device))
            if scores.size(1) != num_items:
                raise InputError(f"the model scores {scores.size(1)} items, the catalogue has {num_items}")
            uncertain = entropy(scores)  # (B,)
            if not torch.isfinite(uncertain).all():
                raise InputError(
                    "the model's scores are not finite", hint="Its training diverged: take another run"
                )
            found.update(zip(keys, uncertain.tolist(), strict=True))
            advance(len(keys))
    finally:
        model.train(was_training)
    return found
