"""Uncertainty of a trained model about the next click of a session, computed without the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule
from torch import Tensor

from llm4sbr.contracts.batch import batch_prefixes
from llm4sbr.contracts.errors import InputError

_MOST_SESSIONS = 512  # largest batch for a small catalogue


def entropy(scores: Tensor) -> Tensor:
    r"""Compute the entropy of the softmax over the catalogue, in nats: from 0 (certain) to log V.

    .. math:: H = -\sum_v p_v \log p_v, \qquad p = \mathrm{softmax}(scores)

    Cross-entropy (Eq. 14, arXiv:2402.13840) trains exactly this p, so H is the loss that the model expects.
    It takes every item into account. The best score, or its lead over the second, may be the same with two
    likely items as with two hundred, but an LLM's hint is worth more in the second case.

    Shapes:
        - scores: ``(B, V)``
        - output: ``(B,)`` float32

    >>> scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [99.0, 0.0, 0.0, 0.0]])
    >>> [round(nats, 4) for nats in entropy(scores).tolist()]  # log 4, and no uncertainty
    [1.3863, 0.0]
    """
    # entr(0) is 0, so an item with p = 0 (by underflow or a mask of -inf) contributes nothing.
    each: Tensor = torch.special.entr(scores.float().softmax(-1))  # (B, V)
    return each.sum(-1)


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
