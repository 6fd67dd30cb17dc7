"""ViewPredictor: predicts the views of sessions that no language model has read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.contracts.rebuildable import Rebuildable

_SMALLEST = 1e-6  # shortest view that a prediction is compared with


class ViewPredictor(Rebuildable, nn.Module):
    r"""Predicts a session's views from what the backbone makes of its clicks (ours).

    A language model cannot read a session that began a second ago. The predictor reads the interests
    ``h_k``, the mean of the session's item embeddings and the last one, and predicts every view as a text
    vector:

    .. math:: \hat q = W_2 \, \mathrm{gelu}(W_1 [h_1 ; \dots ; h_K ; \bar e ; e_L])

    Each input is normalised first. The item embeddings are those of the backbone, with the titles that
    `ItemTitles` adds. A text vector, unlike a projected one, is a target that does not move in training; it
    is projected like a known view (Eq. 7, arXiv:2402.13840), heads can read it, and its nearest titles say
    what it means.

    The predictor learns from the known views ``q`` alone, while the rest of the model trains:

    .. math:: 1 - \cos(\hat q, q) + (|\hat q| / |q| - 1)^2

    No gradient of this loss leaves the predictor, and no other loss reaches it, so its weight has no effect.
    The second term keeps the length: the gates are not squashed, so shorter views would act differently.
    In training known views of a share of the sessions are hidden and replaced by their predictions, so that
    the fusion and the heads learn to read both.

    Args:
        hidden: Size of the hidden layer.
        hide: Probability of replacing the known views of a session by their predictions in training.

    Shapes:
        - h: ``(B, K, d)``, items: ``(V, d)``
        - output: ``(B, K, d_t)``
    """

    learned: Tensor

    def __init__(self, hidden: PositiveInt = 200, hide: Rate = 0.3) -> None:
        super().__init__()
        self.hidden, self.hide = hidden, hide

    def attach(self, dim: int, text_dim: int, num_views: int) -> None:
        """Create the layers. A wrapped model calls it once, when it is constructed.

        Args:
            dim: ``d``.
            text_dim: ``d_t``.
            num_views: ``K``.
        """
        self.num_views, self.text_dim = num_views, text_dim
        self.inner = nn.Linear((num_views + 2) * dim, self.hidden)
        self.outer = nn.Linear(self.hidden, num_views * text_dim)
        # Whether the predictor has learned from a view. Before that it has nothing to say.
        self.register_buffer("learned", torch.zeros(num_views, dtype=torch.bool))

    def forward(self, h: Tensor, items: Tensor, batch: SessionBatch) -> Tensor:
        """Predict the views of every session; no gradient reaches the inputs.

        Args:
            h: Interest that each view is paired with.
            items: Item embeddings that the backbone scores with; row ``k - 1`` is item ``k``.
            batch: Sessions.
        """
        hidden = self.encode(h, items, batch)  # (B, hidden)
        predicted: Tensor = self.outer(hidden)  # (B, K * d_t)
        return predicted.view(-1, self.num_views, self.text_dim)

    def encode(self, h: Tensor, items: Tensor, batch: SessionBatch) -> Tensor:
        """Output of the hidden layer, ``(B, hidden)``."""
        h, items = h.detach(), items.detach()
        rows = (batch.item_ids - 1).clamp(min=0)  # (B, L)
        share = batch.padding_mask() / batch.lengths.unsqueeze(1)  # (B, L)
        mean = (share.to(items.dtype).unsqueeze(1) @ items[rows]).squeeze(1)  # (B, d)
        last = items[rows.gather(1, batch.lengths.unsqueeze(1) - 1).squeeze(1)]  # (B, d)
        given = torch.cat((h, torch.stack((mean, last), dim=1).to(h.dtype)), dim=1)  # (B, K + 2, d)
        encoded: Tensor = self.inner(layer_norm(given, given.shape[2:]).flatten(1))
        return gelu(encoded)

    def choose(self, known: Tensor) -> Tensor:
        """Views that predictions replace: unknown ones, and in training those of a share of the sessions.

        Shapes:
            - known: ``(B, K)`` bool, True for known views
            - output: ``(B, K)`` bool
        """
        unknown = ~known
        if self.training and self.hide:
            unknown = unknown | (torch.rand(len(known), 1, device=known.device) < self.hide)
        return unknown & self.learned

    def loss(self, predicted: Tensor, views: Tensor | None, known: Tensor) -> Tensor:
        """Error of the predictions of known views, averaged over all views of the batch.

        Unknown views count as 0, so that the losses of the parts of a batch add up to that of the whole.

        Args:
            predicted: Output of `forward`.
            views: Text views; None if no view is known.
            known: True for known views.

        Shapes:
            - predicted, views: ``(B, K, d_t)``, known: ``(B, K)`` bool
            - output: scalar
        """
        if views is None:
            return 0 * predicted.sum()  # still part of the graph
        self.learned |= known.any(0)
        if predicted.dtype in (torch.float16, torch.bfloat16):
            predicted = predicted.float()
        target = torch.where(known.unsqueeze(-1), views.detach().to(predicted), 1.0)  # (B, K, d_t)
        lengths = torch.linalg.vector_norm(predicted, dim=-1), torch.linalg.vector_norm(target, dim=-1)
        own, true = (length.clamp(min=_SMALLEST) for length in lengths)  # (B, K)
        error = 1 - (predicted * target).sum(-1) / (own * true) + (own / true - 1).square()
        mean: Tensor = (error * known).mean()
        return mean

    def rows_of_items(self) -> dict[str, int]:
        """No tensor."""
        return {}

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Keep everything for another catalogue: no tensor has a row per item."""
        return dict(before)
