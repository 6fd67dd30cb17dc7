"""Prepared examples kept on disk, keyed by what made them, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, Split
from llm4sbr.contracts.files import atomic_folder, write_text

from .pipeline import Prepared

FORMAT = 1
_ARRAYS, _ITEMS, _SESSIONS, _META = "arrays.safetensors", "items.parquet", "sessions.parquet", "meta.json"
_FIELDS = ("clicks", "start", "end", "target", "session")


class CacheWarning(UserWarning):
    """The cache of prepared data was damaged or could not be written; the data themselves are right."""


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Within it no other process of this machine, or of those that share `folder`, is within it, too.

    Where the folder cannot be written nobody waits: nothing is kept there either.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def cache_key(settings: Mapping[str, object], files: Iterable[str | Path]) -> str:
    """Hex digest of the format, every setting and every file's content.

    Args:
        settings: JSON-serialisable choices.
        files: The source files, in a fixed order; where they lie does not matter.
    """
    sources = [(Path(file).name, Path(file).stat().st_size, _digest(Path(file))) for file in files]
    made_from = json.dumps([FORMAT, settings, sources], sort_keys=True)
    return hashlib.blake2b(made_from.encode(), digest_size=16).hexdigest()


def load_or_build(folder: Path, key: str, build: Callable[[], Prepared]) -> Prepared:
    """Read entry `key` of `folder`, or build and keep it.

    Warns:
        CacheWarning: The entry is damaged (it is then built anew), or `folder` can't be written.
    """
    entry = folder / key
    if entry.exists():
        try:
            return load(entry)
        except Exception as error:  # whatever a damaged file makes a reader raise: build it anew
            warnings.warn(
                f"{entry}: the cached data are damaged ({error}) and are built anew",
                CacheWarning,
                stacklevel=2,
            )
            shutil.rmtree(entry, ignore_errors=True)
    prepared = build()
    try:
        save(prepared, entry)
    except (InputError, OSError) as error:
        warnings.warn(f"{folder}: the data could not be cached ({error})", CacheWarning, stacklevel=2)
    return prepared


def save(prepared: Prepared, entry: Path) -> None:
    """Write an entry, whole or not at all; if another process was first, keep its entry."""
    splits, catalogue = prepared.splits, prepared.catalogue
    arrays = {f"{name}.{field}": getattr(splits[name], field) for name in SPLITS for field in _FIELDS}
    with atomic_folder(entry) as scratch:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch / _ARRAYS)
        pl.DataFrame(
            {"item_id": catalogue.item_ids, "title": catalogue.titles},
            schema={"item_id": pl.String, "title": pl.String},
        ).write_parquet(scratch / _ITEMS)
        pl.DataFrame(
            {
                "split": [name for name in SPLITS for _ in splits[name].session_ids],
                "session_id": [session for name in SPLITS for session in splits[name].session_ids],
            },
            schema={"split": pl.String, "session_id": pl.String},
        ).write_parquet(scratch / _SESSIONS)
        digests = {name: _digest(scratch / name) for name in (_ARRAYS, _ITEMS, _SESSIONS)}
        write_text(scratch / _META, json.dumps({"format": FORMAT, "digests": digests}))


def load(entry: Path) -> Prepared:
    """Read an entry.

    Raises:
        ValueError: A file's content is not what was written.
        OSError: A file is missing.
    """
    meta = json.loads((entry / _META).read_text("utf-8"))
    for name in (_ARRAYS, _ITEMS, _SESSIONS):
        if _digest(entry / name) != meta["digests"][name]:
            raise ValueError(f"{name} is not what was written")
    arrays = load_file(entry / _ARRAYS)
    items, sessions = pl.read_parquet(entry / _ITEMS), pl.read_parquet(entry / _SESSIONS)
    splits: dict[Split, Examples] = {}
    for name in SPLITS:
        clicks, start, end, target, session = (arrays[f"{name}.{field}"] for field in _FIELDS)
        ids = tuple(sessions.filter(pl.col("split") == name)["session_id"].to_list())
        splits[name] = Examples(clicks, start, end, target, session, ids)
    return Prepared(Catalogue(tuple(items["item_id"].to_list()), tuple(items["title"].to_list())), splits)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
