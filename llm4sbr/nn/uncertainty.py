"""Uncertainty of scores over the catalogue, computed without the target."""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST = -1e4  # logarithm of a probability that is 0 in float32


def entropy(scores: Tensor) -> Tensor:
    r"""Compute the entropy of the softmax over the catalogue, in nats: from 0 (certain) to log V.

    .. math:: H = -\sum_v p_v \log p_v = \log Z - \frac1Z \sum_v e^{s_v} s_v, \qquad Z = \sum_v e^{s_v}

    Cross-entropy (Eq. 14, arXiv:2402.13840) trains exactly this p, so H is the loss that the model expects.
    It takes every item into account. The best score, or its lead over the second, may be the same with two
    likely items as with two hundred, but an LLM's hint is worth more in the second case.

    The second form needs no logarithm for each item, which takes most of the time of the first.

    Shapes:
        - scores: ``(B, V)``
        - output: ``(B,)`` float32

    >>> scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [99.0, 0.0, 0.0, 0.0]])
    >>> [round(nats, 4) for nats in entropy(scores).tolist()]  # log 4, and no uncertainty
    [1.3863, 0.0]
    """
    scores = scores.float()
    # A score of -inf, as that of an item that is left out, contributes 0 and not 0 * -inf.
    scores = (scores - scores.amax(-1, keepdim=True)).clamp_(min=_LOWEST)  # (B, V)
    each = scores.exp()  # (B, V)
    total = each.sum(-1)  # (B,)
    found: Tensor = total.log() - torch.linalg.vecdot(each, scores) / total
    return found
