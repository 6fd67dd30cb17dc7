"""S²-DHCN: a hypergraph of training sessions, with self-supervision by a line graph of the batch."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from llm4sbr.backbones.position_attention import Clicks, ReversedPositionAttention, find_clicks
from llm4sbr.backbones.training_graph import Hyperedges, Hypergraph
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.ranges import NonNegativeFloat, PositiveInt


def jaccard(items: Tensor, session: Tensor, num_sessions: int) -> Tensor:
    """Jaccard similarity of the distinct items of every two sessions; 1 on the diagonal.

    Shapes:
        - items, session: ``(T,)`` long, one row per click
        - output: ``(B, B)``

    >>> jaccard(torch.tensor([5, 6, 6, 6, 7, 8]), torch.tensor([0, 0, 0, 1, 1, 1]), 2).tolist()
    [[1.0, 0.25], [0.25, 1.0]]
    """
    distinct, column = torch.unique(items, return_inverse=True)
    has = torch.zeros(num_sessions, len(distinct), device=items.device)
    has[session, column] = 1
    shared, size = has @ has.T, has.sum(1)
    return shared / (size.unsqueeze(1) + size - shared)


class DHCN(EmbeddingBackbone):
    r"""Self-supervised hypergraph convolutional networks (Xia et al., AAAI 2021, arXiv:2012.06852).

    The *hypergraph channel* computes the scores. It convolves all items over the training sessions
    (`Hypergraph`), averages the layers, and reads out the session's clicks as GCE-GNN does
    (`ReversedPositionAttention`); scores are products with the convolved items:

    .. math:: X_h = \frac{1}{L+1} \sum_{l=0}^{L} (D^{-1} H B^{-1} H^T)^l X, \quad
        \theta_h = \sum_t \alpha_t x_t, \quad \hat z = \theta_h^T X_h

    The *line graph channel* is used in training only. It represents each session of the batch by the mean of
    its unconvolved items and convolves the sessions over their Jaccard similarity :math:`\hat A`, which is 1
    on its diagonal:

    .. math:: \Theta_l = \frac{1}{L+1} \sum_{l=0}^{L} (\hat D^{-1} \hat A)^l \Theta^{(0)}, \quad
        L_s = -\sum_i \log \sigma(\theta_h^T \theta_l) + \log(1 - \sigma(\tilde\theta_h^T \theta_l))

    :math:`\tilde\theta_h` is a row of the batch's :math:`\Theta_h` after shuffling its rows and columns. The
    auxiliary loss is :math:`\beta L_s`; no score depends on another session of the batch.

    :math:`\theta_h` is the long-term interest and the model's own read-out; the last click's convolved item
    is the short-term interest.

    The paper prints :math:`\sigma(1 - \cdot)` in :math:`L_s` but names binary cross-entropy; this model and
    the authors' code use binary cross-entropy. Two departures from their code follow the paper: each training
    session is one hyperedge (in their code each prefix without its target is one; see `hyperedges`), and
    gradients reach :math:`\Theta_l`.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.
        num_layers: ``L``, layers of both channels.
        beta: β, weight of the self-supervised task; 0 omits the line graph (the paper's DHCN). As in the
            authors' code it weights a sum over the batch; 0.01 is meant for batches of 100 sessions.
        max_length: Number of positions, the length of the longest session; 200 in the authors' code.
        hyperedges: ``sessions`` makes one hyperedge of each training session, as in the paper; ``prefixes``
            makes one of each training example's clicks, as in the authors' code, so that early clicks of
            long sessions weigh more. It multiplies the work of a step by about half a session's length.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``; `Interests.context` is ``(V, d)``, the convolved items
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        num_layers: PositiveInt = 3,
        beta: NonNegativeFloat = 0.01,
        max_length: PositiveInt = 200,
        hyperedges: Hyperedges = "sessions",
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.num_layers, self.beta, self.max_length = num_layers, beta, max_length
        self.hypergraph = Hypergraph(num_items, hyperedges)
        self.readout = ReversedPositionAttention(embedding_dim, max_length)
        self.init_uniform()  # as in the authors' code
        self.readout.begin_positive()

    def read_training_sessions(self, examples: Examples) -> None:
        """Build the hypergraph of the training sessions."""
        self.hypergraph.read(examples)

    def encode(self, batch: SessionBatch) -> Interests:
        """Attention over the session (long term) and the last click's item (short term), both convolved."""
        self.check_length(batch)
        where = find_clicks(batch)
        items = batch.item_ids[where.mask]  # (T,)
        convolved = self._convolve()  # (V + 1, d)
        clicks = F.embedding(items, convolved)  # (T, d)
        long_term = self.readout(clicks, where)
        supervised = self.training and self.beta > 0
        return Interests(
            long_term=long_term,
            short_term=clicks[where.last],
            context=convolved[1:],
            auxiliary_loss=self.beta * self._supervise(items, where, long_term) if supervised else None,
        )

    def merge(self, interests: Interests) -> Tensor:
        """The attentive read-out, equal to the long-term interest, ``(B, d)``."""
        return interests.long_term

    def scored_items(self, interests: Interests) -> Tensor:
        """The convolved items, ``(V, d)``, that `encode` stored in the context."""
        return cast(Tensor, interests.context)

    def item_embeddings(self) -> Tensor:
        """The convolved items, ``(V, d)``, without the padding row."""
        return self._convolve()[1:]

    def _convolve(self) -> Tensor:
        """Mean of the items over all layers; the padding row stays zero."""
        self.hypergraph.check_known()
        hidden = total = self.embedding.weight
        for _ in range(self.num_layers):
            hidden = self.hypergraph(hidden)
            total = total + hidden
        return total / (self.num_layers + 1)

    def _supervise(self, items: Tensor, where: Clicks, sessions: Tensor) -> Tensor:
        """Self-supervised loss: tell pairs of a session's two vectors from pairs with shuffled vectors."""
        clicks = self.embedding(items)  # (T, d)
        hidden = scatter(clicks, where.session, dim_size=len(sessions), reduce="mean")  # (B, d)
        overlap = jaccard(items, where.session, len(sessions))  # (B, B)
        share = overlap / overlap.sum(1, keepdim=True)
        total = hidden
        for _ in range(self.num_layers):
            hidden = share @ hidden
            total = total + hidden
        line = total / (self.num_layers + 1)
        rows = torch.randperm(sessions.size(0), device=sessions.device)
        columns = torch.randperm(sessions.size(1), device=sessions.device)
        true = (sessions * line).sum(1)  # (B,)
        shuffled = (sessions[rows][:, columns] * line).sum(1)
        return (F.softplus(-true) + F.softplus(shuffled)).sum()
