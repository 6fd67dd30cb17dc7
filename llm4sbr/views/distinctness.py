"""Whether an encoder tells the catalogue's titles apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

_SAME = 1e-4  # largest difference between two embeddings of one input in batches of other lengths
_TOLERATED = 0.1  # share of the titles whose embedding another title may have


def count_distinct(embeddings: Tensor) -> int:
    """Count the rows that differ from each other.

    Equal rows are neighbours in the order of a random projection, so one comparison a row is enough.

    Shapes:
        - embeddings: ``(n, d_t)``

    >>> count_distinct(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1e-6]]))
    2
    """
    if len(embeddings) == 0:
        return 0
    direction = torch.randn(embeddings.size(1), generator=torch.Generator().manual_seed(0))
    ordered = embeddings[(embeddings @ direction.to(embeddings)).argsort()]
    return 1 + int(((ordered[1:] - ordered[:-1]).abs().amax(1) > _SAME).sum())


def warn_indistinct(titles: Sequence[str], embeddings: Tensor, encoder: str) -> None:
    """Warn if many different titles have the same embedding.

    Args:
        titles: Titles of the catalogue; blank ones are left out.
        embeddings: Their embeddings.
        encoder: Name of the encoder.

    Shapes:
        - embeddings: ``(V, d_t)``

    Warns:
        UserWarning: If more than a tenth of the different titles have the embedding of another one.
    """
    first = {title: row for row, title in reversed(list(enumerate(titles))) if title.strip()}
    found = count_distinct(embeddings[list(first.values())])
    if len(first) - found > _TOLERATED * len(first):
        warnings.warn(
            f"the encoder {encoder} gives {found:,} embeddings for {len(first):,} different titles, "
            "so views and heads can't tell many items apart. Choose one that knows their language",
            UserWarning,
            stacklevel=2,
        )
