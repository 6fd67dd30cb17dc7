"""SampledSoftmax: cross-entropy over the batch's own items and a sample of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.losses.full_softmax import catalogue_cross_entropy
from llm4sbr.nn.losses.recommendation_loss import RecommendationLoss
from llm4sbr.nn.scoring import Scoring
from llm4sbr.nn.sub_catalogue import SubCatalogue

_ABSENT = (
    -1e4
)  # added to the score of an item that a session's sum leaves out; finite, for sums without an item


class SampledSoftmax(RecommendationLoss):
    r"""Cross-entropy over a sample of the catalogue, for a million items and more.

    A step draws ``n`` items and runs the whole model on them and on the batch's own items (`SubCatalogue`):
    no tensor of the step has a row per catalogue item. The sum over the catalogue is estimated from the drawn
    items (log-Q correction; Bengio and Senécal 2008, and Yi et al. 2019, doi:10.1145/3298689.3346996),

    .. math:: \sum_v e^{s_v} \approx \sum_{v \in C_s \cup \{t\}} e^{s_v}
        + \sum_{v \in D \setminus (C_s \cup \{t\})} e^{s_v - \log \pi_v}, \quad
        \pi_v = 1 - (1 - q_v)^n

    with ``C_s`` the session's items, ``t`` its target, ``D`` the drawn items and ``π`` the probability that
    an item is among them. The estimate of the sum has no bias. Heads receive the corrected scores, so
    `RepeatExplore` estimates its sums alike. With ``n >= V`` the loss is that of `FullSoftmax`.

    Together with `RowAdam`, which updates only the rows of a step, a step costs the same for any catalogue.

    Args:
        negatives: ``n``, number of draws in a step, shared by the batch.
        popularity: Share of the draws in proportion to an item's training targets; the others are uniform.
        smoothing: Label smoothing, as in `FullSoftmax`; its mean over the catalogue is estimated, too.

    Raises:
        InputError: If a part of the model needs the whole catalogue in every step, or several processes
            train.
    """

    share: Tensor
    upto: Tensor

    def __init__(self, negatives: PositiveInt = 4096, popularity: Rate = 0.5, smoothing: Rate = 0.0) -> None:
        super().__init__()
        self.negatives, self.popularity, self.smoothing = negatives, popularity, smoothing
        self.register_buffer("share", torch.zeros(0, dtype=torch.float64), persistent=False)  # q, (V,)
        self.register_buffer("upto", torch.zeros(0, dtype=torch.float64), persistent=False)  # its running sum
        self._catalogue: SubCatalogue | None = None
        self.items: Tensor | None = None  # (U,) numbers of the step's items, sorted
        self._correction: Tensor | None = None  # (U,) -log π of the step's items; _ABSENT if not drawn

    def read_training_sessions(self, examples: Examples, num_items: int) -> None:
        """Count the targets, to which a share of the draws is proportional."""
        count = np.bincount(examples.target, minlength=num_items + 1)[1:]  # (V,)
        self._set_share(torch.from_numpy(count), self.share.device)

    @contextmanager
    def narrowed(self, model: Scoring, batch: SessionBatch) -> Iterator[SessionBatch]:
        """Draw the items of a step; inside the block the model has these and the batch's own items."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed and torch.distributed.get_world_size() > 1:
            raise InputError(
                "SampledSoftmax trains in one process: no strategy sums its sparse gradients",
                hint="Use FullSoftmax, or BlockwiseSoftmax with --trainer.strategy fsdp (docs/scale.md)",
            )
        if self._catalogue is None or self._catalogue.model is not model:
            self._catalogue = SubCatalogue(model)
        num_items = self._catalogue.num_items
        drawn = self._draw(num_items, batch.item_ids.device)
        own = torch.cat((batch.item_ids.flatten(), batch.target))
        items = torch.unique(torch.cat((own, drawn)))
        self.items = items = items[items > 0]  # padding is no item
        with self._catalogue.over(items, batch) as narrow:
            self._correction = self._correct(items, drawn, num_items)
            yield narrow

    def of_sessions(
        self, model: Scoring, session: Tensor, interests: Interests, batch: SessionBatch
    ) -> Tensor:
        """The loss of a batch, averaged over its sessions."""
        assert self._correction is not None
        scores = model.score(session, interests)  # (B, U)
        correction = self._correction.to(scores.dtype).expand(scores.shape)
        surely = torch.cat((batch.columns(), batch.target.unsqueeze(1) - 1), dim=1)  # (B, L + 1)
        correction = correction.scatter(1, surely, 0.0)  # always in the sum
        scores = model.join_heads(scores + correction, session, batch, training=True)
        loss: Tensor = self(scores, batch.target)
        if not self.smoothing:
            return loss
        drawn = self._correction > _ABSENT  # (U,)
        weight = self._correction.exp() * drawn
        mean = (scores - correction) @ (weight / weight.sum()).to(scores.dtype)  # (B,) over the catalogue
        target = scores.gather(1, batch.target.unsqueeze(1) - 1).squeeze(1)
        return loss + self.smoothing * (target - mean).mean()

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of corrected scores, without smoothing."""
        return catalogue_cross_entropy(scores, target)

    def _draw(self, num_items: int, device: torch.device) -> Tensor:
        """Items of a step, with repetitions."""
        if self.negatives >= num_items:
            return torch.arange(1, num_items + 1, device=device)
        if len(self.share) != num_items:
            self._set_share(torch.zeros(num_items), device)
        place = torch.rand(self.negatives, dtype=torch.float64, device=device)
        return torch.searchsorted(self.upto, place).clamp_(max=num_items - 1) + 1

    def _correct(self, items: Tensor, drawn: Tensor, num_items: int) -> Tensor:
        """``-log π`` of the step's items, ``(U,)`` float32; `_ABSENT` for items that were not drawn."""
        if self.negatives >= num_items:
            return torch.zeros(len(items), device=items.device)
        log_included = torch.log(-torch.expm1(self.negatives * torch.log1p(-self.share[items - 1])))
        absent = torch.full_like(log_included, _ABSENT)
        return torch.where(torch.isin(items, drawn), -log_included, absent).float()

    def _set_share(self, count: Tensor, device: torch.device) -> None:
        """Probability of every item in a draw."""
        total = count.sum()
        by_count = count.double() / total if total else torch.full((len(count),), 1 / len(count)).double()
        share = self.popularity * by_count + (1 - self.popularity) / len(count)
        # Without uniform draws an item that was never a target would have no chance, and its sum no estimate.
        self.share = share.clamp(min=0.01 / len(count)).to(device)
        self.share = self.share / self.share.sum()
        self.upto = self.share.cumsum(0)
