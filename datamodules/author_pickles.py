"""The paper authors' files: pickles of already expanded prefixes and their targets."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray
from llm4sbr.contracts.ranges import NonNegativeInt, Rate

from .base import ExampleDataModule
from .dataset import expand
from .pipeline import Prepared, Recipe, make_catalogue
from .rules import Columns, KCore, Sessions, SplitBy
from .splits import cut_at_random
from .table_files import read_bytes
from .tables import read_items

Sequences = list[list[int]]
_HINT = "Save lists of plain integers: pickle.dump((list_of_lists, list_of_targets), file)"


class _ListsOnly(pickle.Unpickler):
    """Unpickler that rejects every global: it returns lists, tuples, numbers and strings and runs no code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InputError("the pickle refers to code and is rejected", value=f"{module}.{name}", hint=_HINT)


def read_pickle(path: str | Path) -> tuple[Sequences, list[int]]:
    """Read prefixes and targets from a pickle without running code from it.

    Raises:
        InputError: If the pickle refers to a class or function, is damaged, or does not hold a list of
            non-empty lists of positive integers and a list of positive integers of the same length.
    """
    try:
        content = _ListsOnly(io.BytesIO(read_bytes(path))).load()
    except InputError as error:
        if error.path is not None:
            raise
        raise InputError(error.problem, path=path, value=error.value, hint=error.hint) from None
    except Exception as error:  # the unpickler raises many error types on a damaged stream
        raise InputError(f"the pickle is damaged ({error!r})", path=path, hint=_HINT) from error
    if not (_is_list(content) and len(content) == 2 and all(map(_is_list, content))):
        raise InputError("the pickle is not a pair of lists", path=path, value=type(content), hint=_HINT)
    prefixes, targets = content
    if len(prefixes) != len(targets):
        raise InputError(f"{len(prefixes)} prefixes but {len(targets)} targets", path=path)
    for row, (prefix, target) in enumerate(zip(prefixes, targets, strict=True), start=1):
        if not _is_list(prefix) or not prefix:
            raise InputError("a prefix must be a non-empty list of items", path=path, row=row, value=prefix)
        for item in (*prefix, target):
            if type(item) is not int or not 0 < item < 1 << 62:
                raise InputError(
                    "an item must be a positive integer", path=path, row=row, value=item, hint=_HINT
                )
    return [list(prefix) for prefix in prefixes], list(targets)


def group(prefixes: Sequences, targets: Sequence[int]) -> tuple[Sequences, list[int]]:
    """Recover the sessions behind expanded examples.

    Adjacent examples belong to the same session if one is a prefix of the other.

    Returns:
        Whole sessions, and the session of each example.

    >>> group([[1, 2], [1], [4]], [3, 2, 5])
    ([[1, 2, 3], [4, 5]], [0, 0, 1])
    """
    sessions: Sequences = []
    session_of = []
    for prefix, target in zip(prefixes, targets, strict=True):
        clicks = [*prefix, target]
        shared = min(len(clicks), len(sessions[-1])) if sessions else 0
        if not (shared and len(clicks) != len(sessions[-1]) and clicks[:shared] == sessions[-1][:shared]):
            sessions.append(clicks)
        elif len(clicks) > len(sessions[-1]):
            sessions[-1] = clicks
        session_of.append(len(sessions) - 1)
    return sessions, session_of


class AuthorPickles(ExampleDataModule):
    """``train.txt`` and ``test.txt`` in the format of SR-GNN's and LLM4SBR's authors.

    Validation is cut from training by whole sessions, as far as the examples allow recovering them.

    Args:
        data_dir: Folder of the files.
        train: Pickle of training examples.
        test: Pickle of test examples.
        items: Table of titles (``item_id`` is the pickle's integer); null for data without titles.
        columns: Column names of `items`.
        val_ratio: Share of the training sessions used for validation.
        missing_titles: Treatment of clicked items without a row in `items`: an error, or empty titles with
            one warning.
        seed: Seed of the validation cut.
        **kwargs: Arguments of `ExampleDataModule`.
    """

    def __init__(
        self,
        data_dir: str,
        train: str = "train.txt",
        test: str = "test.txt",
        items: str | None = None,
        *,
        columns: Columns = Columns(),  # noqa: B008 (frozen)
        val_ratio: Rate = 0.1,
        missing_titles: Literal["error", "empty"] = "empty",
        seed: NonNegativeInt = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir, self.train, self.test, self.items = data_dir, train, test, items
        self.columns, self.seed = columns, seed
        self.split = SplitBy(by="column", val_ratio=val_ratio)
        self.missing_titles: Literal["error", "empty"] = missing_titles

    def source_files(self) -> list[Path]:
        """Both pickles, and the table of titles if there is one."""
        folder = Path(self.data_dir)
        return [folder / name for name in (self.train, self.test, self.items) if name is not None]

    def choices(self) -> dict[str, Any]:
        """The authors' recipe and the columns."""
        recipe = Recipe(
            Sessions(by="column"),
            KCore(over="all"),
            self.split,
            self.missing_titles,
            "prefixes",
            "prefixes",
            self.seed,
        )
        return {**asdict(recipe), "columns": asdict(self.columns)}

    def build(self) -> Prepared:
        """Read the pickles, cut the validation split and number the items in the order of their integers."""
        train_file, test_file, *titles = self.source_files()
        training, testing = read_pickle(train_file), read_pickle(test_file)
        if not training[0]:
            raise InputError("no training example: the file holds none", path=train_file)
        train, test = _grouped("train", *training), _grouped("test", *testing)
        items = np.union1d(train.clicks, test.clicks)  # sorted
        clicked = pl.Series(items.astype(str).tolist(), dtype=pl.String)
        if titles:
            table = read_items(titles[0], self.columns)
        else:  # in numerical order, not in string order
            table = pl.DataFrame({"item_id": clicked, "title": [""] * len(clicked)})
        catalogue = make_catalogue(clicked, table, self.missing_titles, titles[0] if titles else None)
        numbers = np.array([catalogue.index[item] for item in clicked], dtype=np.int64)
        train, test = _renumbered(train, items, numbers), _renumbered(test, items, numbers)
        held = cut_at_random(train.session_ids, self.seed, self.split.val_ratio)
        in_validation = np.isin(train.session, sorted(held))
        lengths = np.diff(np.append(np.unique(test.start), len(test.clicks)))
        return Prepared(
            catalogue,
            {
                "train": _chosen(train, ~in_validation),
                "validate": _chosen(train, in_validation),
                "test": test,
                "predict": expand(test.clicks, lengths, test.session_ids, "predict"),
            },
        )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _grouped(name: str, prefixes: Sequences, targets: Sequence[int]) -> Examples:
    """Examples over the sessions that `group` finds; the items are still the pickle's integers."""
    sessions, session_of = group(prefixes, targets)
    lengths = np.array([len(clicks) for clicks in sessions], dtype=np.int64)  # (S,)
    first = np.cumsum(lengths) - lengths  # (S,)
    session = np.array(session_of, dtype=np.int64)  # (E,)
    return Examples(
        clicks=np.array([item for clicks in sessions for item in clicks], dtype=np.int64),
        start=first[session],
        end=first[session] + np.array([len(prefix) for prefix in prefixes], dtype=np.int64),
        target=np.array(targets, dtype=np.int64),
        session=session,
        session_ids=tuple(f"{name}#{number}" for number in range(1, len(sessions) + 1)),
    )


def _renumbered(examples: Examples, items: IntArray, numbers: IntArray) -> Examples:
    """Replace the pickle's integers, `items` (sorted), by the catalogue's `numbers`."""
    clicks = numbers[np.searchsorted(items, examples.clicks)]
    return replace(examples, clicks=clicks, target=numbers[np.searchsorted(items, examples.target)])


def _chosen(examples: Examples, wanted: npt.NDArray[np.bool_]) -> Examples:
    """The `wanted` examples (whole sessions), without the clicks of other sessions."""
    kept = np.unique(examples.session[wanted])  # (S',)
    bounds = np.append(np.unique(examples.start), len(examples.clicks))  # (S + 1,)
    lengths = np.diff(bounds)[kept]  # (S',)
    click_session = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))  # (T,)
    session = np.searchsorted(kept, examples.session[wanted])  # (E',)
    shift = (np.cumsum(lengths) - lengths)[session] - examples.start[wanted]  # (E',)
    return Examples(
        clicks=examples.clicks[np.isin(click_session, kept)],
        start=examples.start[wanted] + shift,
        end=examples.end[wanted] + shift,
        target=examples.target[wanted],
        session=session,
        session_ids=tuple(examples.session_ids[number] for number in kept.tolist()),
    )
