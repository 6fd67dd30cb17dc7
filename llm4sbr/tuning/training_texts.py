"""Training texts: prompts of sessions, each with the title of a following click as its answer."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, ExampleSource, Split
from llm4sbr.contracts.ranges import NonNegativeInt, PositiveInt, Ranged
from llm4sbr.tuning.tuner import TrainingText
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions, build_prompt, sanitize_title
from llm4sbr.views.templates import ViewTemplate


class SessionTexts(Dataset[list[TrainingText]]):
    """Training texts of runs of neighbouring prefixes of one session, each with a view drawn at random.

    Args:
        examples: Examples of one split.
        catalogue: Catalogue with the titles; examples whose target has no title are left out.
        prompts: Options of the prompts; each view template selects the click that is the answer. Titles are
            cut in prompts and in answers.
        prefixes: Maximum number of neighbouring prefixes per entry.
        limit: Maximum number of clicks to use, from runs drawn at random; None uses all.
        seed: Seed of the shuffle.
    """

    def __init__(
        self,
        examples: Examples,
        catalogue: Catalogue,
        prompts: PromptOptions,
        prefixes: PositiveInt,
        limit: PositiveInt | None,
        seed: NonNegativeInt,
    ) -> None:
        self.examples, self.catalogue, self.prompts = examples, catalogue, prompts
        titled = np.array([False, *(bool(title.strip()) for title in catalogue.titles)])
        rows = np.flatnonzero(titled[examples.target])
        # The examples of a session are adjacent.
        first = np.flatnonzero(np.diff(examples.session[rows], prepend=-1))
        sizes = np.diff(np.append(first, len(rows)))
        self._titled, self._end = rows, np.repeat(first + sizes, sizes)  # (n,): end of a row's session
        runs = [
            part[begin : begin + prefixes]
            for part in np.split(rows, first[1:])
            for begin in range(0, len(part), prefixes)
        ]
        order = np.random.default_rng(seed).permutation(len(runs))
        enough = np.cumsum([len(runs[at]) for at in order])
        last = len(order) if limit is None else int(np.searchsorted(enough, limit, side="right")) or 1
        self.runs = [runs[at] for at in order[:last]]

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, at: int) -> list[TrainingText]:
        rows = self.runs[at]
        views = self.prompts.views
        drawn = torch.randint(len(views), (len(rows),)).tolist()
        return [self._text(int(row), views[view]) for row, view in zip(rows, drawn, strict=True)]

    def _text(self, row: int, template: ViewTemplate) -> TrainingText:
        prompt = build_prompt(template, self.examples.prefix(row), self.catalogue, self.prompts)
        answering = row if template.target == "next" else self._later(row)
        title = self.catalogue.title(int(self.examples.target[answering]))
        return TrainingText(prompt, sanitize_title(title, self.prompts.max_title_chars))

    def _later(self, row: int) -> int:
        """Draw uniformly this row or a later one of the same session; its target follows the prefix."""
        at = int(np.searchsorted(self._titled, row))
        return int(self._titled[int(torch.randint(at, int(self._end[at]), ()))])


class TrainingTextDataModule(Ranged, LightningDataModule):
    """Training texts from the training and validation sessions of a session data module.

    The test split is never read.

    Args:
        source: Session data module.
        prompts: Options of the prompts.
        batch_size: Number of runs of up to ``prefixes`` neighbouring prefixes per step.
        prefixes: Maximum number of neighbouring prefixes per run, see `SessionTexts`.
        limit: Maximum number of training clicks; None uses all.
        val_limit: Maximum number of validation clicks; None uses all.
        num_workers: Number of processes that write prompts.
        seed: Seed of the shuffle from which a limit selects sessions.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        source: ExampleSource,
        prompts: PromptOptions = DEFAULT_PROMPTS,
        batch_size: PositiveInt = 4,
        prefixes: PositiveInt = 16,
        limit: PositiveInt | None = None,
        val_limit: PositiveInt | None = 500,
        num_workers: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.source, self.prompts = source, prompts
        self.batch_size, self.prefixes, self.num_workers = batch_size, prefixes, num_workers
        self.limit, self.val_limit, self.seed = limit, val_limit, seed

    @cached_property
    def titles(self) -> list[str]:
        """Every title of the catalogue as prompts show it."""
        return self.prompts.titles(self.source.catalogue)

    def train_dataloader(self) -> DataLoader[list[TrainingText]]:
        """Load training sessions, in random order."""
        return self._loader("train", self.limit, shuffle=True)

    def val_dataloader(self) -> DataLoader[list[TrainingText]]:
        """Load validation sessions."""
        return self._loader("validate", self.val_limit, shuffle=False)

    def _loader(self, split: Split, limit: int | None, *, shuffle: bool) -> DataLoader[list[TrainingText]]:
        texts = SessionTexts(
            self.source.examples(split), self.source.catalogue, self.prompts, self.prefixes, limit, self.seed
        )
        if not len(texts):
            raise InputError(f"the {split} split has no click on an item with a title")
        return DataLoader(
            texts,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=_joined,
        )


def _joined(runs: list[list[TrainingText]]) -> list[TrainingText]:
    return [text for run in runs for text in run]
