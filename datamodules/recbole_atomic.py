"""RecBole's atomic files ``NAME.inter`` and ``NAME.item``: tab-separated, with a type after column names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from llm4sbr.contracts.errors import InputError

from .pipeline import Recipe
from .recbole_sessions import part_files, sessions_of_parts
from .rules import Columns, KCore, Sessions, SplitBy
from .session_module import SessionDataModule
from .table_files import parse_delimited, read_bytes
from .tables import read_events, read_items


def read_atomic(path: str | Path) -> pl.DataFrame:
    """Read one atomic file as strings; ``item_id:token`` in the header becomes ``item_id``.

    Raises:
        InputError: If the file is missing, empty, ragged or not UTF-8, or two columns have the same name.
    """
    table = parse_delimited(read_bytes(path), path, separator="\t", quoted=False)
    plain = {name: name.partition(":")[0] for name in table.columns}
    twice = [name for name in plain.values() if list(plain.values()).count(name) > 1]
    if twice:
        raise InputError("two columns have the same name", path=path, value=twice[0], hint="Remove one")
    return table.rename(plain)


class RecBoleAtomic(SessionDataModule):
    """Any data set in RecBole's format.

    Session data sets that RecBole splits beforehand, ``NAME.train.inter``, ``NAME.valid.inter`` and
    ``NAME.test.inter`` with a prefix (``item_id_list``) and its next item a line, are read as whole sessions
    with the split of the files; `sessions` and `split` do not apply.

    Args:
        data_dir: Folder of the atomic files.
        name: File name without suffix; by default that of the only ``.inter`` file. Without an ``.item``
            file, titles are empty.
        columns: Column names without types; set the title column of the ``.item`` file here.
        sessions: Options that turn clicks into sessions; by default a user's gap of 10 minutes.
        kcore: Options of the filter for rare items and short sessions.
        split: Options of the split.
        **kwargs: Arguments of `SessionDataModule`.

    Raises:
        InputError: If there is no ``.inter`` file, or there are several and no `name` is given.
    """

    def __init__(
        self,
        data_dir: str,
        name: str | None = None,
        *,
        columns: Columns = Columns(),  # noqa: B008 (frozen)
        sessions: Sessions = Sessions(by="gap"),  # noqa: B008
        kcore: KCore = KCore(over="all"),  # noqa: B008
        split: SplitBy = SplitBy(by="temporal"),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir, columns=columns, sessions=sessions, kcore=kcore, split=split, **kwargs)
        self.name = name

    def source_files(self) -> list[Path]:
        """The ``.inter`` files and, if it exists, the ``.item`` file."""
        folder = Path(self.data_dir or ".")
        name = self.name
        parts = part_files(folder, name)
        if parts:
            item = folder / f"{parts[0].name.removesuffix('.train.inter')}.item"
            return [*parts, *([item] if item.is_file() else [])]
        if name is None:
            found = sorted(folder.glob("*.inter"))
            if len(found) != 1:
                problem = f"the folder holds {len(found)} .inter files"
                raise InputError(problem, path=folder, hint="Check data_dir, or give `name`")
            name = found[0].stem
        item = folder / f"{name}.item"
        return [folder / f"{name}.inter", *([item] if item.is_file() else [])]

    def recipe(self) -> Recipe:
        """Every choice that affects the examples; the files of a split data set decide its split."""
        recipe = super().recipe()
        if not self._in_parts():
            return recipe
        return replace(recipe, sessions=Sessions(by="column"), split=replace(recipe.split, by="column"))

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks and titles of the atomic files."""
        files = self.source_files()
        if self._in_parts():
            clicks = sessions_of_parts(files[:3], [read_atomic(path) for path in files[:3]])
            events = read_events(files[0], Columns(), key="session_id", split=True, table=clicks)
            return events, read_items(files[3], self.columns, read_atomic(files[3])) if files[3:] else None
        split = self.split.by == "column"
        events = read_events(files[0], self.columns, key=self._key, split=split, table=read_atomic(files[0]))
        return events, read_items(files[1], self.columns, read_atomic(files[1])) if len(files) > 1 else None

    def _in_parts(self) -> bool:
        return bool(part_files(Path(self.data_dir or "."), self.name))
