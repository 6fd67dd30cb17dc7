"""ExampleSampler: order of the examples in an epoch and their distribution over processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

_AT_ONCE = 1 << 16  # examples
FILLER = -1  # replaces an example's index; `SessionDataset` turns it into a row without a target


class ExampleSampler(DistributedSampler[int]):
    """Orders the examples by seed and epoch only, and distributes them over the processes.

    Process ``r`` of ``W`` takes places ``r, r + W, r + 2W, ...``, so the batches of all processes together
    are those of one process with ``W`` times the batch size. No example is used twice. A process that would
    have one batch less than the others gets a batch with one `FILLER`, because every rank must take part in
    collectives.

    With a ``pool`` the examples of a batch have similar lengths. A batch is as wide as its longest session,
    so with one long session among a hundred short ones most of the computation is padding. Examples are
    shuffled and cut into pools of ``pool`` batches; each pool is sorted by length and cut into batches; the
    batches are shuffled. The composition of batches changes from epoch to epoch.

    Args:
        lengths: Length of every example.
        batch_size: Number of examples in a batch of one process.
        shuffle: Whether to shuffle; otherwise examples are in order.
        pool: Number of batches that are sorted together. 1 leaves the order random; a large number avoids
            padding but always combines long sessions with long ones; 0 shuffles freely.
        seed: Seed of the shuffle, the same on every rank.
        num_replicas: ``W``, number of processes.
        rank: ``r``, rank of this process.

    Shapes:
        - lengths: ``(E,)``

    >>> list(ExampleSampler(torch.tensor([2, 2, 2]), batch_size=1, num_replicas=2, rank=0))
    [0, 2]
    >>> list(ExampleSampler(torch.tensor([2, 2, 2]), batch_size=1, num_replicas=2, rank=1))
    [1, -1]
    """

    def __init__(
        self,
        lengths: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        pool: int = 0,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        # Lightning does not replace a sampler that is already a DistributedSampler.
        super().__init__(range(len(lengths)), num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.lengths, self.batch_size, self.pool = lengths, batch_size, pool
        self.skipped = 0

    def seek(self, epoch: int, batches: int) -> None:
        """Start the next pass in the middle of an epoch.

        Args:
            epoch: Index of the epoch, from 0.
            batches: Number of this process's finished batches.
        """
        self.set_epoch(epoch)
        self.skipped = batches * self.batch_size

    def __len__(self) -> int:
        """Number of examples of a whole epoch, wherever the next pass starts."""
        own = len(range(self.rank, len(self.lengths), self.num_replicas))
        most = len(range(0, len(self.lengths), self.num_replicas))  # rank 0 has the most examples
        return own + (-(-own // self.batch_size) < -(-most // self.batch_size))

    def __iter__(self) -> Iterator[int]:
        """Indices of this process for the epoch or the rest of it."""
        own = self.order()[self.rank :: self.num_replicas]
        fillers = len(self) - len(own)
        start, self.skipped = self.skipped, 0
        # Few at a time: as a list, the numbers of 80 million examples take 3 GB.
        for part in torch.split(own[start:], _AT_ONCE):
            yield from part.tolist()
        yield from [FILLER] * min(fillers, len(self) - start)

    def order(self) -> Tensor:
        """Order of all examples in this epoch, ``(E,)``."""
        count = len(self.lengths)
        if not self.shuffle:
            return torch.arange(count)
        # A separate generator, because the state of the global one differs between processes.
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(count, generator=generator)
        return self._alike(order, generator) if self.pool and count else order

    def _alike(self, order: Tensor, generator: torch.Generator) -> Tensor:
        size = self.batch_size * self.num_replicas
        pools = [
            pool[self.lengths[pool].argsort(stable=True)] for pool in torch.split(order, self.pool * size)
        ]
        batches = torch.split(torch.cat(pools), size)
        # A shorter batch stays at the end: the loader cuts by count, so it would shift all later batches.
        whole = len(batches) - (len(batches[-1]) < size)
        places = torch.randperm(whole, generator=generator).tolist()
        return torch.cat([*(batches[place] for place in places), *batches[whole:]])
