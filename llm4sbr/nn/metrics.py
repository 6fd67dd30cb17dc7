"""Streaming ranking metrics over the whole catalogue; one rank per session serves every K."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from llm4sbr.contracts.ranges import PositiveInt, Ranged


def target_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each target among all items: 1 + items scored strictly higher + half of the ties.

    Constant scores therefore give the middle rank, not the first. NaN scores never improve a rank: an item
    counts as higher unless its score is at most the target's.

    Args:
        scores: Scores; column ``k - 1`` is item ``k``.
        target: Items 1..V.

    Shapes:
        - scores: ``(B, V)``, target: ``(B,)`` long
        - output: ``(B,)`` float64, in 1..V; ties give halves

    >>> target_ranks(torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]]), torch.tensor([3, 1])).tolist()
    [2.0, 2.0]
    """
    own = scores.gather(1, (target - 1).unsqueeze(1))  # (B, 1)
    higher = scores.size(1) - (scores <= own).sum(1)
    ties = ((scores == own).sum(1) - 1).clamp(min=0)  # not the target itself
    return 1 + higher.double() + ties.double() / 2


class SessionRanking(Ranged, Metric):
    """Recall, MRR and NDCG at every K, averaged over all sessions; a miss counts as 0.

    A session has one target, so Recall@K equals HR@K and the paper's P@K, and the ideal DCG is 1. A session
    is a hit if its rank over the whole catalogue (`target_ranks`) is at most K. A hit adds ``1`` to Recall,
    ``1 / rank`` to MRR and ``1 / log2(1 + rank)`` to NDCG. Sessions with an unknown target (0) are ignored.

    The state is the number of sessions at each rank. These are whole numbers, so the means are identical to
    the last bit in any order and for any division into batches or processes.

    Args:
        ks: Cut-offs.

    Shapes:
        - update: scores ``(B, V)``, target ``(B,)`` long in 1..V
        - compute: dict of scalars named ``recall@K``, ``mrr@K``, ``ndcg@K``

    >>> metric = SessionRanking(ks=[1, 2])
    >>> metric.update(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([3]))
    >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
    {'recall@1': 0.0, 'mrr@1': 0.0, 'ndcg@1': 0.0, 'recall@2': 1.0, 'mrr@2': 0.5, 'ndcg@2': 0.631}
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    ranks: Tensor
    count: Tensor

    def __init__(self, ks: Sequence[PositiveInt] = (5, 10, 20)) -> None:
        super().__init__()
        self.ks = tuple(ks)
        # Entry n counts the rank n / 2, since ties give halves. The first two entries stay empty.
        self.add_state("ranks", torch.zeros(2 * max(self.ks) + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch."""
        known = target > 0
        halves = (2 * target_ranks(scores, target.clamp(min=1))).long()  # (B,)
        counted = torch.bincount(halves[known & (halves < len(self.ranks))], minlength=len(self.ranks))
        self.ranks += counted
        self.count += known.sum()

    def compute(self) -> dict[str, Tensor]:
        """Means over all sessions added so far (0 if there were none)."""
        rank = torch.arange(2, len(self.ranks), dtype=torch.float64, device=self.ranks.device) / 2
        gains = torch.stack((torch.ones_like(rank), 1 / rank, 1 / torch.log2(1 + rank)))  # (3, ranks)
        earned = gains * self.ranks[2:]
        means: dict[str, Tensor] = {}
        for k in self.ks:
            at_k = (earned[:, : 2 * k - 1].sum(1) / self.count.clamp(min=1)).float()
            means |= {f"{name}@{k}": at_k[row] for row, name in enumerate(("recall", "mrr", "ndcg"))}
        return means
