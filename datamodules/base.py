"""The data module that every preset is a few lines over."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, Split

from .dataset import SessionDataset, keep_latest
from .loader import ExampleLoader
from .pipeline import Prepared, Recipe, build
from .prepared import cache_key, load_or_build, one_at_a_time
from .rules import Columns, ExampleMode, KCore, Sessions, SplitBy
from .sampler import ExampleSampler
from .tables import read_events, read_items


class SessionDataModule(LightningDataModule):
    """Clicks and titles from tables of one's own, as batches of session examples.

    What is prepared is cached, keyed by the content of the files and every choice, and is prepared on demand:
    `num_items`, `catalogue` and `examples` work on a data module that no Trainer has seen. A preset overrides
    `fetch`, `source_files` and `load_tables`, or only the defaults.

    Args:
        data_dir: Folder of `events` and `items`; by default the current one.
        events: Table of clicks: CSV, TSV or Parquet, also gzipped.
        items: Table of titles; null for data without titles.
        columns: What the columns are called.
        sessions: How clicks become sessions.
        kcore: Which rare items and short sessions are dropped.
        split: How sessions are divided.
        missing_titles: Clicked items without a row in `items`: an error, or empty titles and one warning.
        examples_per_session: Every prefix predicts the next click, or only the last click is a target.
        eval_examples: The same for validation and test; by default as for training.
        max_length: Longest prefix; the latest clicks are kept.
        batch_size: Training examples a batch.
        eval_batch_size: Examples a batch otherwise.
        num_workers: Processes that make batches.
        session_graph: Build the session graph of each batch.
        bucket: Training batches that are sorted by length together, so that a batch holds sessions of like
            length and little padding (`ExampleSampler`); 0 shuffles freely. 50 is a good number.
        seed: Of random cuts. Shuffling follows Lightning's global seed.
        cache_dir: Where prepared and fetched data are kept; by default in `cache_root`.
        predict_events: Table of the sessions to recommend for, with `events`' columns; by default the test
            sessions, whole.

    Raises:
        InputError: Of a choice out of range; and when prepared, of data that can't be used.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        events: str = "events.csv",
        items: str | None = "items.csv",
        *,
        columns: Columns = Columns(),  # noqa: B008 (frozen)
        sessions: Sessions = Sessions(by="column"),  # noqa: B008
        kcore: KCore = KCore(over="all"),  # noqa: B008
        split: SplitBy = SplitBy(by="temporal"),  # noqa: B008
        missing_titles: Literal["error", "empty"] = "empty",
        examples_per_session: ExampleMode = "prefixes",
        eval_examples: ExampleMode | None = None,
        max_length: int = 50,
        batch_size: int = 100,
        eval_batch_size: int = 500,
        num_workers: int = 0,
        session_graph: bool = True,
        bucket: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        predict_events: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("max_length", max_length),
            ("batch_size", batch_size),
            ("eval_batch_size", eval_batch_size),
        ):
            if value < 1:
                raise InputError(f"{name} is at least 1", value=value)
        if bucket < 0:
            raise InputError("bucket is a number of batches, or 0", value=bucket)
        self.data_dir, self.cache_dir = data_dir, cache_dir
        self.events, self.items, self.predict_events = events, items, predict_events
        self.columns, self.sessions, self.kcore, self.split = columns, sessions, kcore, split
        self.missing_titles: Literal["error", "empty"] = missing_titles
        self.examples_per_session: ExampleMode = examples_per_session
        self.eval_examples: ExampleMode = eval_examples or examples_per_session
        self.max_length, self.session_graph, self.seed = max_length, session_graph, seed
        self.bucket = bucket
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self._prepared: Prepared | None = None
        self._key_of_prepared: str | None = None
        self._order_seed: int | None = None

    # What a preset overrides.

    def fetch(self) -> None:
        """Make sure that the raw files are there."""

    def source_files(self) -> list[Path]:
        """The raw files, whose content is part of the cache key."""
        folder = Path(self.data_dir or ".")
        return [folder / name for name in (self.events, self.items) if name is not None]

    def recipe(self) -> Recipe:
        """Every choice that shapes the examples."""
        return Recipe(
            self.sessions,
            self.kcore,
            self.split,
            self.missing_titles,
            self.examples_per_session,
            self.eval_examples,
            self.seed,
        )

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks (``key, item_id, timestamp``, maybe ``split``) and titles (``item_id, title``)."""
        files = self.source_files()
        split = self.recipe().split.by == "column"
        events = read_events(files[0], self.columns, key=self._key, split=split)
        return events, read_items(files[1], self.columns) if len(files) > 1 else None

    def build(self) -> Prepared:
        """Make the examples of every split from the raw files."""
        events, items = self.load_tables()
        new = self.predict_events
        predict = read_events(new, self.columns, key=self._key) if new else None
        return build(events, items, self.recipe(), predict=predict, path=self.source_files()[0])

    # What everyone uses.

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
        """Hex digest of the files' content and of every choice that shapes the examples."""
        self._ready()
        assert self._key_of_prepared is not None
        return self._key_of_prepared

    def examples(self, split: Split) -> Examples:
        """Examples of one split, prefixes cut to `max_length`; `first_index` is unique over the splits."""
        splits = self._ready().splits
        before = sum(len(splits[name]) for name in SPLITS[: SPLITS.index(split)])
        return replace(keep_latest(splits[split], self.max_length), first_index=before)

    def summary(self) -> str:
        """One line per split: sessions, clicks, examples, mean session length."""
        lines = [f"{self.num_items:,} items"]
        for name, examples in self._ready().splits.items():
            sessions, clicks = len(examples.session_ids), len(examples.clicks)
            alone = sessions - len(set(examples.session.tolist()))
            lines.append(
                f"{name}: {sessions:,} sessions, {clicks:,} clicks, {len(examples):,} examples, "
                f"mean length {clicks / max(sessions, 1):.2f}"
                + (f", {alone:,} sessions of one click give no example" if alone else "")
            )
        return "\n".join(lines)

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Fetch and prepare, once a machine; the result is on disk for the other processes."""
        self._ready()

    def setup(self, stage: str | None = None) -> None:
        """Load what is prepared."""
        self._ready()
        if stage == "fit":
            self._order_seed = None  # of this fit's global seed, unless a checkpoint has one

    def train_dataloader(self) -> DataLoader[SessionBatch]:
        """Training examples, shuffled; batches of like length with `bucket`."""
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
        """What a checkpoint keeps, beside the position that the Trainer keeps: the seed of the order."""
        return {} if self._order_seed is None else {"order_seed": self._order_seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on in the order of an interrupted run."""
        self._order_seed = state_dict.get("order_seed")

    def _loader(self, split: Split, batch_size: int, shuffle: bool = False) -> DataLoader[SessionBatch]:
        examples = self.examples(split)
        trainer = self.trainer
        sampler = ExampleSampler(
            torch.from_numpy(examples.end - examples.start),
            batch_size,
            shuffle=shuffle,
            pool=self.bucket,
            seed=self._seed_of_order() if shuffle else 0,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
        )
        return ExampleLoader(
            SessionDataset(examples, self.session_graph),
            self._position if shuffle and trainer else None,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _seed_of_order(self) -> int:
        """Of training's order: from the global seed, but one for all processes and for all of a run."""
        if self.trainer is None:
            return torch.initial_seed()
        if self._order_seed is None:
            self._order_seed = int(self.trainer.strategy.broadcast(torch.initial_seed()))
        return self._order_seed

    def _position(self) -> tuple[int, int]:
        """Epoch and batch at which the Trainer goes on."""
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    @property
    def _key(self) -> str:
        return self.columns.session if self.sessions.by == "column" else self.columns.user

    def _ready(self) -> Prepared:
        if self._prepared is None:
            # Processes that were started together come here together: one fetches and prepares, all read.
            with one_at_a_time(cache_root(self.cache_dir)):
                self._prepared = self._fetch_and_prepare()
        return self._prepared

    def _fetch_and_prepare(self) -> Prepared:
        self.fetch()
        files = [*self.source_files(), *([Path(self.predict_events)] if self.predict_events else [])]
        for file in files:
            if not file.is_file():
                raise InputError("there is no such file", path=file, hint="Check data_dir and the file names")
        made_by = {"class": type(self).__name__, **asdict(self.recipe()), "columns": asdict(self.columns)}
        self._key_of_prepared = cache_key({**made_by, "files": len(self.source_files())}, files)
        folder = cache_root(self.cache_dir) / "prepared"
        return load_or_build(folder, self._key_of_prepared, self.build)
