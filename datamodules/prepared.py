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
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Examples, Split
from llm4sbr.contracts.files import atomic_folder, write_text
from llm4sbr.contracts.mapped import Texts, mapped

from .digests import digest, known_digest
from .pipeline import Prepared

FORMAT = 3
FIELDS = ("clicks", "start", "end", "target", "session", "id_ends", "ids")
_ITEMS, _META = "items.parquet", "meta.json"


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


def cache_key(settings: Mapping[str, object], files: Iterable[str | Path], folder: Path | None = None) -> str:
    """Hex digest of the format, every setting and every file's content.

    Args:
        settings: JSON-serialisable choices.
        files: Source files in a fixed order; their location does not matter.
        folder: Cache folder, in which digests of large files are remembered; None for none.
    """
    sources = [
        (path.name, path.stat().st_size, digest(path) if folder is None else known_digest(path, folder))
        for path in map(Path, files)
    ]
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
        return load(entry)  # mapped, so that the arrays of the preparation are freed
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
    catalogue = prepared.catalogue
    with atomic_folder(entry) as scratch:
        for name, examples in prepared.splits.items():
            for field, array in _arrays(examples).items():
                np.save(scratch / f"{name}.{field}.npy", array, allow_pickle=False)
        pl.DataFrame(
            {"item_id": catalogue.item_ids, "title": catalogue.titles},
            schema={"item_id": pl.String, "title": pl.String},
        ).write_parquet(scratch / _ITEMS)
        digests = {name: digest(scratch / name) for name in _files()}
        write_text(
            scratch / _META, json.dumps({"format": FORMAT, "digests": digests, "warnings": prepared.warnings})
        )


def load(entry: Path) -> Prepared:
    """Map an entry: its arrays and session ids stay on disk until they are used.

    Raises:
        ValueError: If a file's content differs from what was written.
        OSError: If a file is missing.
    """
    meta = json.loads((entry / _META).read_text("utf-8"))
    for name in _files():
        if known_digest(entry / name, entry.parent) != meta["digests"][name]:
            raise ValueError(f"the checksum of {name} is wrong")
    items = pl.read_parquet(entry / _ITEMS)
    splits: dict[Split, Examples] = {}
    for name in SPLITS:
        clicks, start, end, target, session, ends, ids = (
            mapped(entry / f"{name}.{field}.npy") for field in FIELDS
        )
        splits[name] = Examples(clicks, start, end, target, session, Texts(ends, ids))
    catalogue = Catalogue(tuple(items["item_id"].to_list()), tuple(items["title"].to_list()))
    return Prepared(catalogue, splits, tuple(meta["warnings"]))


def _files() -> list[str]:
    return [_ITEMS, *(f"{name}.{field}.npy" for name in SPLITS for field in FIELDS)]


def _arrays(examples: Examples) -> dict[str, npt.NDArray[Any]]:
    ids = examples.session_ids
    texts = ids if isinstance(ids, Texts) else Texts.of(ids)
    arrays = (examples.clicks, examples.start, examples.end, examples.target, examples.session)
    return dict(zip(FIELDS, (*arrays, texts.ends, texts.content), strict=True))
