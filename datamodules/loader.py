"""ExampleLoader: a data loader that resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from llm4sbr.contracts.batch import SessionBatch

from .dataset import SessionDataset, identity
from .sampler import ExampleSampler


class ExampleLoader(DataLoader[SessionBatch]):
    """Loads batches of examples and resumes within an epoch without building the finished batches again.

    It does not use the global random generator, so a resumed run and an uninterrupted run get the same
    random numbers.

    Args:
        dataset: Dataset to serve.
        position: Function that returns the epoch and its number of finished batches; called at the start of
            a pass. If None, every pass is the next epoch, from its first batch.
        kwargs: Other arguments of `DataLoader`.
    """

    def __init__(
        self,
        dataset: SessionDataset,
        position: Callable[[], tuple[int, int]] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["collate_fn"] = identity  # __getitems__ returns a batch, not a list
        kwargs["generator"] = torch.Generator()
        super().__init__(dataset, **kwargs)
        self.position = position

    def __iter__(self) -> Iterator[SessionBatch]:  # type: ignore[override]
        """Iterate over the epoch or the rest of it.

        The position is read when the first batch is requested, because a Trainer creates the iterator before
        it has loaded the position of a resumed run.
        """
        sampler = getattr(self.batch_sampler, "sampler", None)
        if isinstance(sampler, ExampleSampler):
            epoch, done = (sampler.epoch, 0) if self.position is None else self.position()
            sampler.seek(epoch, done)
        try:
            yield from super().__iter__()
        finally:
            if isinstance(sampler, ExampleSampler):
                sampler.set_epoch(sampler.epoch + 1)  # without a Trainer no other code counts epochs

    def state_dict(self) -> dict[str, Any]:
        """Empty state, which tells the Trainer that the loader can resume; the Trainer saves the position."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
