"""BlockwiseSoftmax: the cross-entropy of `FullSoftmax` without the scores of a whole batch in memory."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.ranges import PositiveInt, Rate
from llm4sbr.nn.losses.full_softmax import FullSoftmax
from llm4sbr.nn.row_blocks import RowBlocks
from llm4sbr.nn.scoring import Scoring


class BlockwiseSoftmax(FullSoftmax):
    """Cross-entropy over the whole catalogue, a few sessions at a time; value and gradient are those of all.

    `FullSoftmax` keeps several matrices of ``B × V`` numbers until the backward pass. Here one block of
    sessions is scored at a time and nothing of it is kept: the backward pass scores it again (gradient
    checkpointing, Chen et al. 2016, arXiv:1604.06174). Every head works, since a block has whole rows. It
    saves memory, mostly on a GPU, and costs up to a third more time.

    Args:
        rows: Sessions in a block; ``rows × V`` scores are in memory at a time.
        smoothing: Label smoothing, as in `FullSoftmax`.

    Raises:
        InputError: If the backbone has scores of its own, which may need the whole batch.
    """

    def __init__(self, rows: PositiveInt = 32, smoothing: Rate = 0.0) -> None:
        super().__init__(smoothing)
        self.rows = rows

    def of_sessions(
        self, model: Scoring, session: Tensor, interests: Interests, batch: SessionBatch
    ) -> Tensor:
        """The loss, averaged over the batch."""
        blocks = RowBlocks(model, session, interests, batch)

        def summed(begin: int) -> Tensor:
            part, scores = blocks.scores(begin, begin + self.rows, training=True)
            loss: Tensor = self(scores, part.target) * len(scores)
            return loss

        total = session.new_zeros(())
        for begin in range(0, len(session), self.rows):
            total = total + checkpoint(summed, begin, use_reentrant=False)
        return total / max(len(session), 1)
