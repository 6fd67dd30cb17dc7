"""Cross-entropy of a title among all titles of the catalogue."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy_among(logits: Tensor, target: Tensor, owner: Tensor, allowed: Tensor) -> Tensor:
    """Cross-entropy of each target token against the tokens that a trie allows at its position.

    Summed over the tokens of a title, this is the title's negative log likelihood under decoding constrained
    to the catalogue: the likelihoods of all titles sum to 1, and a position with only one allowed token adds
    no loss.

    Args:
        logits: Logits of ``P`` positions.
        target: Target token of each position, one of its allowed tokens.
        owner: Position of each of ``c`` allowed tokens, in ascending order; every position occurs.
        allowed: Allowed tokens of all positions.

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
