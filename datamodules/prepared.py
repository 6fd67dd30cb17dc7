"""On-disk cache of prepared examples: keyed by files and choices, written atomically, verified on reading."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, Split
from llm4sbr.contracts.files import atomic_folder, write_text

from .pipeline import Prepared

FORMAT = 2
_ARRAYS, _ITEMS, _SESSIONS, _META = "arrays.safetensors", "items.parquet", "sessions.parquet", "meta.json"
_FIELDS = ("clicks", "start", "end", "target", "session")


class CacheWarning(UserWarning):
    """The cache of prepared data was damaged or could not be written; the returned data are correct."""


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Exclusive lock between the processes of this machine and of machines that share `folder`.

    If the folder is not writable there is no lock, because nothing is cached there either.
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
        files: Source files in a fixed order; their location does not matter.
    """
    sources = [(Path(file).name, Path(file).stat().st_size, _digest(Path(file))) for file in files]
    made_from = json.dumps([FORMAT, settings, sources], sort_keys=True)
    return hashlib.blake2b(made_from.encode(), digest_size=16).hexdigest()


def load_or_build(folder: Path, key: str, build: Callable[[], Prepared]) -> Prepared:
    """Read entry `key` of `folder`, or build and store it.

    Warns:
        UserWarning: Each warning of the preparation, also if the entry is read.
        CacheWarning: If the entry is damaged (it is then rebuilt), or `folder` can't be written.
    """
    entry = folder / key
    if entry.exists():
        try:
            return _told(load(entry))
        except Exception as error:  # a damaged file can raise any error; rebuild the entry
            warnings.warn(
                f"{entry}: the cached data are damaged ({error}) and are rebuilt",
                CacheWarning,
                stacklevel=2,
            )
            shutil.rmtree(entry, ignore_errors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = build()
    told = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))
    prepared = _told(replace(prepared, warnings=tuple(told)))
    try:
        save(prepared, entry)
    except (InputError, OSError) as error:
        warnings.warn(f"{folder}: the data could not be cached ({error})", CacheWarning, stacklevel=2)
    return prepared


def _told(prepared: Prepared) -> Prepared:
    """Give the warnings of the preparation: they concern every run with these data, cached or not."""
    for text in prepared.warnings:
        warnings.warn(text, UserWarning, stacklevel=2)
    return prepared


def save(prepared: Prepared, entry: Path) -> None:
    """Write an entry atomically; if another process wrote it first, keep that entry."""
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
        write_text(
            scratch / _META, json.dumps({"format": FORMAT, "digests": digests, "warnings": prepared.warnings})
        )


def load(entry: Path) -> Prepared:
    """Read an entry.

    Raises:
        ValueError: If a file's content differs from what was written.
        OSError: If a file is missing.
    """
    meta = json.loads((entry / _META).read_text("utf-8"))
    for name in (_ARRAYS, _ITEMS, _SESSIONS):
        if _digest(entry / name) != meta["digests"][name]:
            raise ValueError(f"the checksum of {name} is wrong")
    arrays = load_file(entry / _ARRAYS)
    items, sessions = pl.read_parquet(entry / _ITEMS), pl.read_parquet(entry / _SESSIONS)
    splits: dict[Split, Examples] = {}
    for name in SPLITS:
        clicks, start, end, target, session = (arrays[f"{name}.{field}"] for field in _FIELDS)
        ids = tuple(sessions.filter(pl.col("split") == name)["session_id"].to_list())
        splits[name] = Examples(clicks, start, end, target, session, ids)
    catalogue = Catalogue(tuple(items["item_id"].to_list()), tuple(items["title"].to_list()))
    return Prepared(catalogue, splits, tuple(meta["warnings"]))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
