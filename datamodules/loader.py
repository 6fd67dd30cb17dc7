"""A loader that begins where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from llm4sbr.contracts.batch import SessionBatch

from .dataset import SessionDataset, identity
from .sampler import ExampleSampler


class ExampleLoader(DataLoader[SessionBatch]):
    """Batches of examples; what is done of an epoch already is neither made again nor waited for.

    It draws nothing from the global random numbers, so that a run that was interrupted and one that was not
    see the same.

    Args:
        dataset: What to serve.
        position: Epoch, and batches of it that are done, asked for when a pass begins. If None, every pass
            is the next epoch, from its beginning.
        kwargs: What else a `DataLoader` takes.
    """

    def __init__(
        self,
        dataset: SessionDataset,
        position: Callable[[], tuple[int, int]] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["collate_fn"] = identity  # __getitems__ hands it a batch, not a list
        kwargs["generator"] = torch.Generator()
        super().__init__(dataset, **kwargs)
        self.position = position

    def __iter__(self) -> Iterator[SessionBatch]:  # type: ignore[override]
        """A pass over the epoch, or the rest of it.

        Nothing happens before the first batch is asked for: a Trainer makes the iterator before it knows
        where the run that it resumes had come.
        """
        sampler = getattr(self.batch_sampler, "sampler", None)
        if isinstance(sampler, ExampleSampler):
            epoch, done = (sampler.epoch, 0) if self.position is None else self.position()
            sampler.seek(epoch, done)
        try:
            yield from super().__iter__()
        finally:
            if isinstance(sampler, ExampleSampler):
                sampler.set_epoch(sampler.epoch + 1)  # without a Trainer nobody else counts

    def state_dict(self) -> dict[str, Any]:
        """Empty: a Trainer's checkpoint has the position; this tells it that the loader can begin there."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
