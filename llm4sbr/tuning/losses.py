"""The likelihood of a title among the titles there are."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy_among(logits: Tensor, target: Tensor, owner: Tensor, allowed: Tensor) -> Tensor:
    """Cross-entropy of each target token against the tokens that a trie allows in its place.

    Summed over the tokens of a title this is the title's negative log likelihood under decoding held to the
    catalogue: over all titles the likelihoods sum to 1, and where one token alone is allowed nothing is lost.

    Args:
        logits: Of ``P`` places.
        target: The right token of each place, one of the allowed ones.
        owner: The place that each of ``c`` allowed tokens belongs to, rising; each place stands in it.
        allowed: The allowed tokens.

    Shapes:
        - logits: ``(P, tokens)``, target: ``(P,)``, owner, allowed: ``(c,)``
        - output: ``(P,)``

    >>> logits = torch.tensor([[0.0, 0.0, 9.0], [1.0, 2.0, 3.0]])
    >>> cross_entropy_among(logits, torch.tensor([0, 2]), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]))
    tensor([0.6931, 0.0000])
    """
    value = logits[owner, allowed]  # (c,)
    top = torch.full_like(logits[:, 0], -torch.inf).scatter_reduce(0, owner, value.detach(), "amax")  # (P,)
    total = torch.zeros_like(top).index_add(0, owner, (value - top[owner]).exp())
    return total.log() + top - logits.gather(1, target.unsqueeze(1)).squeeze(1)
