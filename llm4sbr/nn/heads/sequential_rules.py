"""SequentialRules: adds counts of item-to-item transitions to a trained model's scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt
from llm4sbr.nn.counting import share_of_repeats
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.item_neighbors import count_item_neighbors

FLOOR = 1e-4  # ε: share of the session's total rule weight given to an item without a rule
FEW_REPEATS = 1e-3  # share of training targets below which an item of the session gets no rule


class SequentialRules(ScoreHead):
    r"""Combines the scores of a trained model with sequential rules (ours).

    With ``d`` numbers per item, a model does not memorise every transition of the training sessions; counts
    do, but they say nothing about other transitions. The head multiplies both probabilities (a product of
    experts, Hinton 2002), with the rules' probability raised to the power of λ:

    .. math:: s'_v = s_v + \lambda \log(\epsilon + r_v / \sum_u r_u), \quad
        r_v = \sum_{i \in s} \frac{1}{1 + age_s(i)} \, sim(i, v)

    ``sim(i, v)`` sums the inverse distance of every training click on ``i`` and every later click on ``v`` in
    the same session, divided by 20 plus the number of sessions with ``i`` (sequential rules, Ludewig &
    Jannach 2018, arXiv:1803.09587; see `count_item_neighbors`). An item that the session
    repeats counts at its latest click. Items of the session get no rule where training sessions (almost)
    never repeat an item: less than one training target in a thousand. A session without any rule keeps the
    model's order.

    The head applies in validation, test and prediction only, because in training every transition would be
    its own rule. λ can therefore be changed after training. The checkpoint does not hold the counts: they
    are counted in the data module's training sessions whenever a Trainer starts, so they may include clicks
    that are newer than the model.

    Args:
        weight: λ, above 0; about 1 is a good start. Choose it by validation.
        neighbors: Number of rules kept for each item, the strongest ones.

    Shapes:
        - scores: ``(B, V)``, column ``k - 1`` is item ``k``; session: not read; batch: `SessionBatch`
        - output: ``(B, V)`` float32
    """

    in_training, reads_views = False, False
    num_items: PositiveInt
    start: Tensor
    item: Tensor
    similarity: Tensor
    repeats: Tensor

    def __init__(self, weight: PositiveFloat = 1.0, neighbors: PositiveInt = 100) -> None:
        super().__init__()
        self.weight, self.neighbors = weight, neighbors
        # Item k has the rules start[k]:start[k + 1]; item 0, padding, has none.
        self.register_buffer("start", torch.zeros(0, dtype=torch.long), persistent=False)  # (V + 2,)
        self.register_buffer("item", torch.zeros(0, dtype=torch.int32), persistent=False)  # (M,)
        self.register_buffer("similarity", torch.zeros(0), persistent=False)  # (M,)
        # 1 if items of the session get rules, which the training sessions decide; else 0.
        self.register_buffer("repeats", torch.zeros(1), persistent=False)

    def attach(self, backbone: SessionBackbone) -> None:
        """Store the number of items."""
        self.num_items = backbone.num_items

    def read_training_sessions(self, examples: Examples) -> None:
        """Count the transitions of the training sessions; earlier counts are replaced."""
        counted = count_item_neighbors(
            examples,
            self.num_items,
            neighbors=self.neighbors,
            regularization=20.0,
            alpha=1.0,
            order="later",
            pair_decay="harmonic",
        )
        self.repeats.fill_(share_of_repeats(examples) >= FEW_REPEATS)
        for name in ("start", "item", "similarity"):
            old = self.get_buffer(name)
            setattr(self, name, torch.from_numpy(getattr(counted, name)).to(old.device, old.dtype))

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert the counts to another catalogue; rules of and for items that are gone are dropped.

        A checkpoint holds no counts; a bundle does.
        """
        if "start" not in before or not len(before["start"]):
            return {**before}
        number, start = change.number, before["start"].cpu()
        owner = torch.repeat_interleave(number, start.diff())  # (M,) present number of each rule's item
        item = number[before["item"].cpu().long()]
        kept = ((owner > 0) & (item > 0)).nonzero().squeeze(1)
        order = kept[owner[kept].argsort(stable=True)]
        count = torch.bincount(owner[order], minlength=change.num_items + 1)  # (V + 1,)
        return {
            **before,
            "start": torch.cat((start[:1], count.cumsum(0))),
            "item": item[order].to(before["item"]),
            "similarity": before["similarity"][order.to(before["similarity"].device)],
        }

    def rules(self, batch: SessionBatch) -> Tensor:
        """``r``, ``(B, V)`` float32; 0 for an item without a rule.

        Raises:
            InputError: If no training session has been counted.
        """
        if not len(self.start):
            raise InputError(
                "the sequential rules have not counted any session",
                hint="Give the Trainer a data module, or call "
                "head.read_training_sessions(data.examples('train'))",
            )
        row, click = torch.nonzero(batch.latest_clicks(), as_tuple=True)  # (C,)
        asking = batch.item_ids[row, click]
        weight = 1 / (batch.lengths[row] - click).float()  # the last click has age 0
        count = self.start[asking + 1] - self.start[asking]
        owner = torch.repeat_interleave(count)  # (R,): the click that each rule belongs to
        where = torch.arange(owner.size(0), device=owner.device)
        where += (self.start[asking] - (count.cumsum(0) - count))[owner]
        cell = row[owner] * self.num_items + self.item[where].long() - 1
        found = weight.new_zeros(batch.lengths.size(0) * self.num_items)
        found = found.index_add_(0, cell, weight[owner] * self.similarity[where])
        found = found.view(-1, self.num_items)
        found[row, asking - 1] *= self.repeats
        return found

    def log_shares(self, batch: SessionBatch) -> Tensor:
        """Log of each item's share of the rules, the factor of λ: ``(B, V)`` float32."""
        found = self.rules(batch)
        share = found / found.sum(1, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)
        return torch.log(share + FLOOR)

    def forward(self, scores: Tensor, session: Tensor, batch: SessionBatch) -> Tensor:
        """Add the weighted rules to the scores."""
        return scores.float() + self.weight * self.log_shares(batch)
