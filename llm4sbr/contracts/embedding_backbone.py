"""EmbeddingBackbone: base class of backbones with a table of item embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt


class EmbeddingBackbone(SessionBackbone):
    r"""A `SessionBackbone` whose items are rows of one table, `embedding`, which the scores also use.

    Row 0 is padding, a vector of zeros without a gradient. A subclass adds its layers after
    ``super().__init__``, initialises its parameters with `init_uniform` or its own scheme, and implements
    `encode` and `merge`. A subclass with a limited number of positions sets `max_length` and calls
    `check_length` in `encode`.

    Args:
        num_items: ``V``.
        embedding_dim: ``d``.

    Shapes:
        - embedding: ``(V + 1, d)``, row ``k`` is item ``k``
        - item_embeddings: ``(V, d)``, row ``k - 1`` is item ``k``
    """

    max_length: PositiveInt | None = None  # clicks of the longest session; None for any length

    def __init__(self, num_items: PositiveInt, embedding_dim: PositiveInt = 100) -> None:
        super().__init__(num_items, embedding_dim)
        self.embedding = nn.Embedding(num_items + 1, embedding_dim, padding_idx=0)

    def item_embeddings(self) -> Tensor:
        """``(V, d)``, without the padding row."""
        return self.embedding.weight[1:]

    def item_rows(self) -> dict[str, int]:
        """The table, with its padding row; a subclass with further rows per item adds their names."""
        return {"embedding.weight": 1}

    def init_uniform(self, *modules: nn.Module) -> None:
        r"""Draw parameters from :math:`U(-1/\sqrt{d}, 1/\sqrt{d})`; the padding row stays zero.

        Args:
            modules: Modules to initialise, in this order; by default the whole backbone.
        """
        bound = 1 / math.sqrt(self.embedding_dim)
        for module in modules or (self,):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound)
        self.zero_padding()

    @torch.no_grad()
    def zero_padding(self) -> None:
        """Set the padding row to zero, after an initialisation of the whole table."""
        self.embedding.weight[0].zero_()

    def check_length(self, batch: SessionBatch) -> None:
        """Reject a batch with more columns than the backbone has positions.

        Raises:
            InputError: If the batch is wider than `max_length`.
        """
        width = batch.item_ids.size(1)
        if self.max_length is not None and width > self.max_length:
            raise InputError(
                f"{type(self).__name__} was built for at most {self.max_length} clicks",
                value=width,
                hint="Raise its max_length, or lower the data module's",
            )
