"""ExampleDataModule: base class of data modules, which serves prepared examples as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, Split
from llm4sbr.contracts.ranges import NonNegativeInt, PositiveInt, Ranged

from .dataset import SessionDataset, keep_latest
from .loader import ExampleLoader
from .pipeline import Prepared
from .prepared import cache_key, load_or_build, one_at_a_time
from .sampler import ExampleSampler


@contextmanager
def _named_failures(files: Sequence[Path]) -> Iterator[None]:
    """Name the files in the error of a library that they made fail, such as a column of an odd type."""
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        named = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
        raise InputError(f"the data cannot be prepared: {said}", path=named) from error


class ExampleDataModule(Ranged, LightningDataModule):
    """Prepares examples once, caches them and serves them as batches.

    The key of the cache entry covers the content of the files and every choice that affects the examples.
    Data are prepared on demand: `num_items`, `catalogue` and `examples` work without a Trainer. A subclass
    defines its files (`source_files`), its choices (`choices`) and how it builds the examples (`build`).

    Args:
        max_length: Length of the longest prefix; the latest clicks are kept.
        batch_size: Number of examples in a training batch.
        eval_batch_size: Number of examples in any other batch.
        num_workers: Number of data-loader worker processes.
        session_graph: Whether to build the session graph of each batch.
        bucket: Number of training batches that are sorted by length together, so that a batch holds sessions
            of similar length and little padding (`ExampleSampler`). 0 shuffles freely; 50 is a good value.
        cache_dir: Folder of prepared and downloaded data; by default `cache_root`.

    Raises:
        InputError: If a choice is out of range or, at preparation, if the data are invalid.
    """

    def __init__(
        self,
        *,
        max_length: PositiveInt = 50,
        batch_size: PositiveInt = 200,
        eval_batch_size: PositiveInt = 500,
        num_workers: NonNegativeInt = 0,
        session_graph: bool = True,
        bucket: NonNegativeInt = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.max_length, self.session_graph, self.bucket = max_length, session_graph, bucket
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.cache_dir = cache_dir
        self._prepared: Prepared | None = None
        self._key_of_prepared: str | None = None
        self._order_seed: int | None = None

    # Methods that a subclass overrides.

    def fetch(self) -> None:
        """Make sure that the raw files exist, for example by a download."""

    def source_files(self) -> Sequence[Path]:
        """The raw files, whose content is part of the cache key."""
        raise NotImplementedError

    def new_files(self) -> Sequence[Path]:
        """Further files whose content is part of the cache key."""
        return ()

    def choices(self) -> dict[str, Any]:
        """Every choice that affects the examples, as plain values; part of the cache key."""
        raise NotImplementedError

    def build(self) -> Prepared:
        """Build the examples of every split from the raw files."""
        raise NotImplementedError

    # Public interface.

    @property
    def catalogue(self) -> Catalogue:
        """The items and their titles."""
        return self._ready().catalogue

    @property
    def num_items(self) -> int:
        """``V``, the number of items; known before the model is built."""
        return self.catalogue.num_items

    @property
    def fingerprint(self) -> str:
        """Hex digest of the files' content and of every choice that affects the examples."""
        self._ready()
        assert self._key_of_prepared is not None
        return self._key_of_prepared

    def examples(self, split: Split) -> Examples:
        """Examples of one split, prefixes cut to `max_length`; `first_index` is unique over the splits."""
        examples = keep_latest(self._ready().splits[split], self.max_length)
        return replace(examples, first_index=self._first_index(split))

    def dataset_of(self, split: Split) -> SessionDataset:
        """Dataset of one split for a data loader; its arrays are mapped files, which its workers share."""
        # It has whole prefixes and shortens those of a batch: shorter ones would be a copy of `start`.
        examples = replace(self._ready().splits[split], first_index=self._first_index(split))
        return SessionDataset(examples, self.session_graph, self.max_length)

    def summary(self) -> str:
        """One line per split: sessions, clicks, examples, mean session length."""
        lines = [f"{self.num_items:,} items"]
        for name, examples in self._ready().splits.items():
            sessions, clicks = len(examples.session_ids), len(examples.clicks)
            alone = sessions - len(np.unique(examples.session))
            lines.append(
                f"{name}: {sessions:,} sessions, {clicks:,} clicks, {len(examples):,} examples, "
                f"mean length {clicks / max(sessions, 1):.2f}"
                + (f", {alone:,} sessions of one click give no example" if alone else "")
            )
        return "\n".join(lines)

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Download and prepare the data once per machine; other processes read the result from disk."""
        self._ready()

    def setup(self, stage: str | None = None) -> None:
        """Load the prepared data."""
        self._ready()
        if stage == "fit":
            self._order_seed = None  # from this fit's global seed, unless a checkpoint sets it

    def train_dataloader(self) -> DataLoader[SessionBatch]:
        """Training examples, shuffled; with `bucket` a batch holds sessions of similar length."""
        return self._loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[SessionBatch]:
        """Validation examples, in order."""
        return self._loader("validate", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[SessionBatch]:
        """Test examples, in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[SessionBatch]:
        """Sessions to recommend for, in order."""
        return self._loader("predict", self.eval_batch_size)

    def state_dict(self) -> dict[str, int]:
        """Seed of the shuffle for a checkpoint; the Trainer saves the position in the epoch."""
        return {} if self._order_seed is None else {"order_seed": self._order_seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the shuffle of an interrupted run."""
        self._order_seed = state_dict.get("order_seed")

    def _loader(self, split: Split, batch_size: int, shuffle: bool = False) -> DataLoader[SessionBatch]:
        dataset = self.dataset_of(split)
        trainer = self.trainer
        sampler = ExampleSampler(
            dataset.lengths(),
            batch_size,
            shuffle=shuffle,
            pool=self.bucket,
            seed=self._seed_of_order() if shuffle else 0,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
        )
        return ExampleLoader(
            dataset,
            self._position if shuffle and trainer else None,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _first_index(self, split: Split) -> int:
        splits = self._ready().splits
        return sum(len(splits[name]) for name in SPLITS[: SPLITS.index(split)])

    def _seed_of_order(self) -> int:
        """Seed of the training shuffle, from the global seed; the same on all ranks and for a whole run."""
        if self.trainer is None:
            return torch.initial_seed()
        if self._order_seed is None:
            self._order_seed = int(self.trainer.strategy.broadcast(torch.initial_seed()))
        return self._order_seed

    def _position(self) -> tuple[int, int]:
        """Epoch and batch at which the Trainer resumes."""
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _ready(self) -> Prepared:
        if self._prepared is None:
            # Processes that start together arrive here together: one downloads and prepares, all read.
            with one_at_a_time(cache_root(self.cache_dir)):
                self._prepared = self._fetch_and_prepare()
        return self._prepared

    def _fetch_and_prepare(self) -> Prepared:
        self.fetch()
        sources = self.source_files()
        files = [*sources, *self.new_files()]
        for file in files:
            if not file.is_file():
                raise InputError("there is no such file", path=file, hint="Check data_dir and the file names")
        made_by = {"class": type(self).__name__, **self.choices(), "files": len(sources)}
        folder = cache_root(self.cache_dir) / "prepared"
        self._key_of_prepared = cache_key(made_by, files, folder)
        with _named_failures(files):
            return load_or_build(folder, self._key_of_prepared, self.build)
