"""NARM: a recurrent network read out by its last state and by attention."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from llm4sbr.backbones.readout import last_click
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.dropout import FastDropout


class NARM(EmbeddingBackbone):
    r"""Neural attentive session-based recommendation (Li et al., CIKM 2017, arXiv:1711.04725).

    A GRU encodes the clicks into states ``h_1..h_t``. Its last state is the output of the global encoder, the
    sequential behaviour. Attention over all states, with the last state as the query, is the output of the
    local encoder, the main purpose of the session. A bilinear map compares both with the items:

    .. math::
        c^g = h_t, \quad c^l = \sum_j v^T \sigma(A_1 h_t + A_2 h_j)\, h_j, \quad S_i = emb_i^T B\, [c^g ; c^l]

    The interests do not follow the paper's names "global" and "local": ``c^l`` covers the whole session and
    is the long-term interest; ``c^g`` is the state at the last click and is the short-term interest.

    As in the paper the attention weights are not normalised and the GRU has no biases; the authors' code
    normalises the weights by a softmax and has biases at the GRU's input. As in their code, one GRU serves
    both encoders. Items and states have the same size; the paper uses 50 and 100. PyTorch's GRU applies the
    reset gate to ``U h``, the paper to ``h``.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``, the size of items and of hidden states.
        embedding_dropout: Dropout between the item embeddings and the GRU (0.25 in the paper).
        session_dropout: Dropout between ``[c^g; c^l]`` and the bilinear map (0.5 in the paper).

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``
    """

    def __init__(
        self,
        num_items: PositiveInt,
        embedding_dim: PositiveInt = 100,
        embedding_dropout: Rate = 0.25,
        session_dropout: Rate = 0.5,
    ) -> None:
        super().__init__(num_items, embedding_dim)
        self.embedding_dropout = FastDropout(embedding_dropout)
        self.gru = nn.GRU(embedding_dim, embedding_dim, bias=False, batch_first=True)
        self.attend_last = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.attend_click = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.attend_score = nn.Linear(embedding_dim, 1, bias=False)
        self.session_dropout = nn.Dropout(session_dropout)
        self.bilinear = nn.Linear(2 * embedding_dim, embedding_dim, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw Gaussians of variance ``2 / fan-in`` and an orthogonal recurrence.

        The authors' code draws variance ``2 / rows`` of its own layout: the same for the GRU's input and the
        attention's matrices, twice as much for ``B``, and 2 for ``v``.
        """
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=math.sqrt(2 / parameter.size(1)))
        nn.init.normal_(self.embedding.weight, std=math.sqrt(2 / self.num_items))
        for gate in cast(Tensor, self.gru.weight_hh_l0).chunk(3):
            nn.init.orthogonal_(gate.data)
        self.zero_padding()

    def encode(self, batch: SessionBatch) -> Interests:
        """Attention over the states (long term, ``c^l``) and the last state (short term, ``c^g``)."""
        # Right padding needs no packing: a state does not depend on later positions.
        states, _ = self.gru(self.embedding_dropout(self.embedding(batch.item_ids)))  # (B, L, d)
        last = last_click(states, batch.lengths)  # (B, d)
        query = self.attend_last(last).unsqueeze(1)  # (B, 1, d)
        weight = self.attend_score(torch.sigmoid(query + self.attend_click(states)))  # (B, L, 1)
        weight = weight * batch.padding_mask().unsqueeze(-1)
        return Interests(long_term=(weight * states).sum(1), short_term=last)

    def merge(self, interests: Interests) -> Tensor:
        """``B [c^g ; c^l]``, ``(B, d)``: the session's side of the bilinear map."""
        session = torch.cat((interests.short_term, interests.long_term), dim=-1)  # (B, 2d)
        return cast(Tensor, self.bilinear(self.session_dropout(session)))
