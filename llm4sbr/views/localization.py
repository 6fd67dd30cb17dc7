"""Intent localisation: ground an answer in the catalogue's titles (Eq. 4-5, arXiv:2402.13840)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.contracts.errors import InputError

_STEPS = 1 << 20  # similarities are compared to about one part in a million


def localize(
    answers: Tensor, titles: Tensor, title_mask: Tensor, r: int = 5, chunk_size: int = 512
) -> tuple[Tensor, Tensor]:
    """Find the ``r`` titles nearest to each answer by cosine similarity.

    Similarities are compared after rounding to steps of 2^-20, so that their last bits, which differ between
    machines, seldom decide; ties go to the lower id. They are kept as they are, without rounding and
    including negative ones, as in the paper.
    With fewer than ``r`` titled items, the remaining slots have id 0 and weight 0; for an answer with a zero
    embedding all slots do.

    Args:
        answers: Embedded answers.
        titles: Embedded titles, row ``k`` is item ``k + 1``.
        title_mask: False at items without a title; they are never chosen.
        r: Number of titles to keep, at least 1.
        chunk_size: Number of answers compared at a time, which bounds memory to ``chunk_size × V``.

    Returns:
        Item ids in descending order of similarity, and the similarities.

    Raises:
        InputError: ``r`` is below 1, or an embedding is not finite.

    Shapes:
        - answers: ``(n, d_t)``, titles: ``(V, d_t)``, title_mask: ``(V,)`` bool
        - output: ids ``(n, r)`` int32 in 1..V or 0, weights ``(n, r)`` float32
    """
    if r < 1:
        raise InputError(
            "localisation needs r to be at least 1", value=r, hint="r = 0 keeps the answer's embedding"
        )
    if not (torch.isfinite(answers).all() and torch.isfinite(titles).all()):
        raise InputError(
            "an embedding is not finite", hint="The text encoder is broken, or overflows in its dtype"
        )
    num_answers, num_items = len(answers), len(titles)
    ids = torch.zeros(num_answers, r, dtype=torch.int32, device=answers.device)
    weights = torch.zeros(num_answers, r, device=answers.device)
    candidates = title_mask.nonzero().squeeze(1)  # (V',) rows of titled items, ascending
    kept = min(r, len(candidates))
    if kept == 0:
        return ids, weights
    unit_titles = normalize(titles[candidates].float(), dim=-1)  # (V', d_t)
    rank = num_items - candidates  # (V',): larger for the lower id
    for begin in range(0, num_answers, chunk_size):
        rows = slice(begin, begin + chunk_size)
        similarity = normalize(answers[rows].float(), dim=-1) @ unit_titles.T  # (c, V'), Eq. 4
        # One integer per pair, ordered by similarity, then id: the order of ties in topk is undefined.
        order = (similarity * _STEPS).round().long() * (num_items + 1) + rank
        best = order.topk(kept, dim=-1).indices  # (c, kept)
        known = answers[rows].any(dim=-1, keepdim=True)  # (c, 1)
        ids[rows, :kept] = torch.where(known, candidates[best] + 1, 0).int()
        weights[rows, :kept] = torch.where(known, similarity.gather(-1, best), 0.0)
    return ids, weights


def mix(ids: Tensor, weights: Tensor, share: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Combine several answers into one view: Eq. 5 for each answer, weighted by its probability.

    The weights of a title that is near several answers are added; the ``r`` largest weights are kept. A
    single answer keeps its titles and weights unchanged.

    Args:
        ids: Titles nearest to each of ``m`` answers, 0 in empty slots.
        weights: Similarities of these titles.
        share: Probability of each answer; normalised to a sum of 1.
        r: Number of titles to keep.

    Shapes:
        - ids, weights: ``(n, m, r)``, share: ``(n, m)``
        - output: ids ``(n, r)`` int32, weights ``(n, r)`` float32, in descending order of weight

    >>> ids, weights = torch.tensor([[[1, 2], [2, 3]]]), torch.tensor([[[1.0, 0.5], [1.0, 0.5]]])
    >>> mix(ids, weights, torch.tensor([[0.6, 0.4]]), 2)
    (tensor([[2, 1]], dtype=torch.int32), tensor([[0.7000, 0.6000]]))
    """
    if ids.size(1) == 1:
        return ids[:, 0], weights[:, 0]
    share = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)  # (n, m)
    flat = ids.flatten(1)  # (n, m * r)
    weighted = (weights * share.unsqueeze(-1)).flatten(1)
    same = flat.unsqueeze(-1) == flat.unsqueeze(1)  # (n, m * r, m * r)
    total = (same * weighted.unsqueeze(1)).sum(-1)  # (n, m * r)
    repeated = (same & torch.ones_like(same).tril(-1)).any(-1)  # also occurs further left
    total = total.masked_fill(repeated | (flat == 0), -torch.inf)
    best, at = total.topk(r, dim=-1)  # (n, r)
    known = best > -torch.inf
    return torch.where(known, flat.gather(-1, at), 0).int(), torch.where(known, best, 0.0)


def view_from_titles(ids: Tensor, weights: Tensor, titles: Tensor) -> Tensor:
    """Compute a view as the sum of its titles, each weighted by its similarity (Eq. 5).

    Shapes:
        - ids: ``(n, r)`` in 0..V, weights: ``(n, r)``, titles: ``(V + 1, d_t)`` with zeros in row 0
        - output: ``(n, d_t)``

    >>> titles = torch.tensor([[0., 0.], [1., 0.], [0., 1.]])
    >>> view_from_titles(torch.tensor([[2, 1]]), torch.tensor([[0.9, 0.5]]), titles)
    tensor([[0.5000, 0.9000]])
    """
    return torch.nn.functional.embedding_bag(
        ids.long(), titles, per_sample_weights=weights.to(titles.dtype), mode="sum"
    )
