"""Which examples an epoch brings, in which order, and which of them each process takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

FILLER = -1  # in place of an example's index; `SessionDataset` makes a row of it that nobody counts


class ExampleSampler(DistributedSampler[int]):
    """An order of the examples that follows from a seed and the epoch alone, dealt out to the processes.

    Process ``r`` of ``W`` takes places ``r, r + W, r + 2W, ...``, so the batches of all processes together
    are those of one process with ``W`` times the batch size. Nobody gets an example that another has, and
    nobody gets one twice: a process that would have a batch less than the others gets one of a `FILLER`, for
    it has to take part in what the others compute together.

    With a ``pool`` the examples of a batch are of like length: a batch is as wide as its longest session, and
    one long session among a hundred short ones makes a model compute mostly padding. Examples are shuffled
    and cut into pools of so many batches; a pool is sorted by length and cut into batches; the batches are
    shuffled. Which others share an example's batch changes from epoch to epoch.

    Args:
        lengths: Length of every example.
        batch_size: Examples of one process in one batch.
        shuffle: False for examples in order.
        pool: Batches that are sorted together: 1 leaves the order random, many leave no padding but always
            pair long sessions with long ones; 0 shuffles freely.
        seed: Of the order; the same in every process.
        num_replicas: ``W``, how many processes share the examples.
        rank: ``r``, which of them this is.

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
        # Lightning leaves alone what is a DistributedSampler already.
        super().__init__(range(len(lengths)), num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.lengths, self.batch_size, self.pool = lengths, batch_size, pool
        self.skipped = 0

    def seek(self, epoch: int, batches: int) -> None:
        """Start the next pass in the middle of an epoch.

        Args:
            epoch: Which one, from 0.
            batches: Of this process, that are done already.
        """
        self.set_epoch(epoch)
        self.skipped = batches * self.batch_size

    def __len__(self) -> int:
        """Of a whole epoch, wherever the next pass starts."""
        own = len(range(self.rank, len(self.lengths), self.num_replicas))
        most = len(range(0, len(self.lengths), self.num_replicas))  # the first process never has fewer
        return own + (-(-own // self.batch_size) < -(-most // self.batch_size))

    def __iter__(self) -> Iterator[int]:
        """Indices of this process, or what is left of them."""
        own: list[int] = self.order()[self.rank :: self.num_replicas].tolist()
        own += [FILLER] * (len(self) - len(own))
        start, self.skipped = self.skipped, 0
        yield from own[start:]

    def order(self) -> Tensor:
        """Order of all examples in this epoch, ``(E,)``."""
        count = len(self.lengths)
        if not self.shuffle:
            return torch.arange(count)
        # A generator of its own: the global one has come a different way in every process.
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(count, generator=generator)
        return self._alike(order, generator) if self.pool and count else order

    def _alike(self, order: Tensor, generator: torch.Generator) -> Tensor:
        size = self.batch_size * self.num_replicas
        pools = [
            pool[self.lengths[pool].argsort(stable=True)] for pool in torch.split(order, self.pool * size)
        ]
        batches = torch.split(torch.cat(pools), size)
        # A shorter batch stays at the end: the loader cuts by counting, so it would shift all others.
        whole = len(batches) - (len(batches[-1]) < size)
        places = torch.randperm(whole, generator=generator).tolist()
        return torch.cat([*(batches[place] for place in places), *batches[whole:]])
