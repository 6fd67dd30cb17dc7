"""An order of the examples in which a batch holds sessions of like length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class BucketSampler(Sampler[int]):
    """Shuffles like a random sampler, and lets the examples of a batch be of like length.

    A batch is as wide as its longest session, so one long session among a hundred short ones makes the
    model compute mostly padding. Examples are shuffled and cut into pools of some batches; a pool is sorted
    by length and cut into batches; the batches are shuffled. Every example comes once an epoch, and which
    others share its batch changes from epoch to epoch.

    Args:
        lengths: Length of every example.
        batch_size: Of the loader that uses the sampler.
        pool: Batches that are sorted together: 1 leaves the order random, many leave no padding but always
            pair long sessions with long ones.

    Shapes:
        - lengths: ``(E,)``
    """

    def __init__(self, lengths: Tensor, batch_size: int, pool: int) -> None:
        self.lengths, self.batch_size, self.pool = lengths, batch_size, pool
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch; a new order each time, that follows from the global seed."""
        # Not from the global generator itself: processes that train together share the seed and must share
        # the order, of which each takes its part, but their generators drift apart by the first dropout.
        generator = torch.Generator().manual_seed(torch.initial_seed() + self.epoch)
        self.epoch += 1
        order = torch.randperm(len(self.lengths), generator=generator)  # (E,)
        pools = [
            pool[self.lengths[pool].argsort(stable=True)]
            for pool in torch.split(order, self.pool * self.batch_size)
        ]
        batches = [batch for batch in torch.split(torch.cat(pools), self.batch_size) if len(batch)]
        # A shorter batch stays at the end: the loader cuts by counting, so it would shift all others.
        short = batches[-1:] if batches and len(batches[-1]) < self.batch_size else []
        whole = batches[: len(batches) - len(short)]
        for number in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[number].tolist()
        for batch in short:
            yield from batch.tolist()
