"""What the tuner learns from: prompts of training sessions, answered with the title of a following click."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from llm4sbr.catalogue import Catalogue
from llm4sbr.errors import InputError
from llm4sbr.examples import Examples, ExampleSource, Split
from llm4sbr.tuning.tuner import Lesson
from llm4sbr.views.prompts import DEFAULT_TEMPLATES, ViewTemplate, build_prompt, sanitize_title, shown_titles


class SessionLessons(Dataset[list[Lesson]]):
    """Each entry is a run of neighbouring prefixes of one session, each asked for one view drawn at random.

    Args:
        examples: Of one split.
        catalogue: Where the titles are; a target without a title is left out.
        templates: The views; each names the click that answers it.
        max_items: Latest clicks that a prompt shows.
        max_title_chars: Longer titles are cut, in prompts and in answers.
        prefixes: Neighbouring prefixes an entry has at most.
        limit: Use so many clicks at most, of sessions drawn at random.
        seed: Of that draw.
    """

    def __init__(
        self,
        examples: Examples,
        catalogue: Catalogue,
        templates: Sequence[ViewTemplate],
        max_items: int,
        max_title_chars: int,
        prefixes: int,
        limit: int | None,
        seed: int,
    ) -> None:
        self.examples, self.catalogue, self.templates = examples, catalogue, tuple(templates)
        self.max_items, self.max_title_chars = max_items, max_title_chars
        titled = np.array([False, *(bool(title.strip()) for title in catalogue.titles)])
        rows = np.flatnonzero(titled[examples.target])
        # A session's examples stand together.
        first = np.flatnonzero(np.diff(examples.session[rows], prepend=-1))
        sizes = np.diff(np.append(first, len(rows)))
        self._titled, self._end = rows, np.repeat(first + sizes, sizes)  # (n,): where a row's session ends
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

    def __getitem__(self, at: int) -> list[Lesson]:
        rows = self.runs[at]
        views = torch.randint(len(self.templates), (len(rows),)).tolist()
        return [self._lesson(int(row), self.templates[view]) for row, view in zip(rows, views, strict=True)]

    def _lesson(self, row: int, template: ViewTemplate) -> Lesson:
        prompt = build_prompt(
            template,
            self.examples.prefix(row),
            self.catalogue,
            max_items=self.max_items,
            max_title_chars=self.max_title_chars,
        )
        answering = row if template.target == "next" else self._later(row)
        title = self.catalogue.title(int(self.examples.target[answering]))
        return Lesson(prompt, sanitize_title(title, self.max_title_chars))

    def _later(self, row: int) -> int:
        """A row of the same session, this one or after it, drawn uniformly: its target follows the prefix."""
        at = int(np.searchsorted(self._titled, row))
        return int(self._titled[int(torch.randint(at, int(self._end[at]), ()))])


class LessonDataModule(LightningDataModule):
    """Lessons from a session data module: training sessions to learn from, validation sessions to look at.

    The test split is never read.

    Args:
        source: The session data module.
        templates: The views.
        max_items: Latest clicks that a prompt shows.
        max_title_chars: Longer titles are cut.
        batch_size: Runs of up to ``prefixes`` neighbouring prefixes in one step.
        prefixes: See `SessionLessons`.
        limit: Learn from so many clicks at most.
        val_limit: Look at so many validation clicks at most.
        num_workers: Processes that write prompts.
        seed: Of which sessions a limit takes.
    """

    def __init__(
        self,
        source: ExampleSource,
        templates: Sequence[ViewTemplate] = DEFAULT_TEMPLATES,
        max_items: int = 20,
        max_title_chars: int = 100,
        batch_size: int = 4,
        prefixes: int = 16,
        limit: int | None = None,
        val_limit: int | None = 500,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.templates = source, tuple(templates)
        self.max_items, self.max_title_chars = max_items, max_title_chars
        self.batch_size, self.prefixes, self.num_workers = batch_size, prefixes, num_workers
        self.limit, self.val_limit, self.seed = limit, val_limit, seed

    @cached_property
    def titles(self) -> list[str]:
        """Every title as prompts show it."""
        return shown_titles(self.source.catalogue.titles, self.max_title_chars)

    def train_dataloader(self) -> DataLoader[list[Lesson]]:
        """Training sessions, in random order."""
        return self._loader("train", self.limit, shuffle=True)

    def val_dataloader(self) -> DataLoader[list[Lesson]]:
        """Validation sessions."""
        return self._loader("validate", self.val_limit, shuffle=False)

    def _loader(self, split: Split, limit: int | None, *, shuffle: bool) -> DataLoader[list[Lesson]]:
        lessons = SessionLessons(
            self.source.examples(split),
            self.source.catalogue,
            self.templates,
            self.max_items,
            self.max_title_chars,
            self.prefixes,
            limit,
            self.seed,
        )
        if not len(lessons):
            raise InputError(f"the {split} split has no click with a title to learn from")
        return DataLoader(
            lessons,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=_joined,
        )


def _joined(runs: list[list[Lesson]]) -> list[Lesson]:
    return [lesson for run in runs for lesson in run]
