"""MovieLens 100K and 1M, with sessions from a user's consecutive ratings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from llm4sbr.contracts.cache import cache_root

from .download import fetch, unpack
from .recbole_atomic import read_atomic
from .rules import Columns, ExampleMode, KCore, Protocol, Sessions, SplitBy
from .session_module import SessionDataModule
from .table_files import parse_delimited, read_bytes
from .tables import read_events, read_items

_RATINGS = ("user_id", "item_id", "rating", "timestamp")


class _MovieLens(SessionDataModule):
    """Base class of both sizes: search paths, and the formats of GroupLens and RecBole."""

    dataset: ClassVar[str]
    checksum: ClassVar[str]
    members: ClassVar[tuple[str, str]]

    def __init__(
        self,
        data_dir: str | None,
        protocol: Protocol,
        url: str | None,
        *,
        sessions: Sessions,
        kcore: KCore | None,
        split: SplitBy | None,
        **kwargs: Any,
    ) -> None:
        paper = protocol == "paper"
        super().__init__(
            data_dir,
            sessions=sessions,
            kcore=kcore or KCore("all" if paper else "train", min_item_clicks=5, min_session_length=2),
            split=split or SplitBy(by="temporal", unseen_items="keep" if paper else "drop"),
            **kwargs,
        )
        self.url = url or f"https://files.grouplens.org/datasets/movielens/{self.dataset}.zip"

    def fetch(self) -> None:
        """Use existing files, otherwise download and unpack the archive."""
        if not all(file.is_file() for file in self.source_files()):
            archive = fetch(self.url, self._folder / f"{self.dataset}.zip", self.checksum)
            unpack(archive, self._folder, [f"{self.dataset}/{member}" for member in self.members])

    def source_files(self) -> list[Path]:
        """Files of ratings and movies: the first pair found, in GroupLens' or RecBole's format."""
        for folder in self._places():
            for names in (self.members, (f"{self.dataset}.inter", f"{self.dataset}.item")):
                files = [folder / name for name in names]
                if all(file.is_file() for file in files):
                    return files
        return [self._folder / member for member in self.members]

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks and titles; a title ends with the year."""
        ratings, movies = self.source_files()
        if ratings.suffix == ".inter":
            clicks, titles = read_atomic(ratings), _titled(read_atomic(movies))
        else:
            clicks = _read_latin(ratings, "\t", _RATINGS)
            titles = _read_latin(movies, "|" if movies.name == "u.item" else "\t", ("item_id", "title"))
        events = read_events(ratings, Columns(), key="user_id", table=clicks)
        return events, read_items(movies, Columns(), titles)

    def _places(self) -> list[Path]:
        return [self._folder, self._folder / self.dataset]

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir) if self.data_dir else cache_root(self.cache_dir) / "raw" / self.dataset


class MovieLens100K(_MovieLens):
    """MovieLens 100K: 100,000 ratings of 943 users; 10 minutes of inactivity start a new session.

    The files are read from `data_dir` (``u.data`` and ``u.item``, or RecBole's ``ml-100k.inter`` and
    ``.item``), otherwise from an installed ``recbole`` distribution, which includes them, otherwise they are
    downloaded from GroupLens.

    Args:
        data_dir: Folder of the files; by default a folder of the cache.
        protocol: `paper`: items with at least 5 clicks and sessions of at least 2 clicks, counted on all
            data; split by time. `temporal`: leak-free; counted on training only, without unseen items.
        url: URL of the archive.
        sessions: Options that turn clicks into sessions.
        kcore: Filter options that replace the protocol's.
        split: Split options that replace the protocol's.
        **kwargs: Arguments of `SessionDataModule`.
    """

    dataset = "ml-100k"
    checksum = "md5:0e33842e24a9c977be4e0107933c0723"
    members = ("u.data", "u.item")

    def __init__(
        self,
        data_dir: str | None = None,
        protocol: Protocol = "paper",
        url: str | None = None,
        *,
        sessions: Sessions = Sessions(by="gap", gap=600.0),  # noqa: B008 (frozen)
        kcore: KCore | None = None,
        split: SplitBy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir, protocol, url, sessions=sessions, kcore=kcore, split=split, **kwargs)

    def _places(self) -> list[Path]:
        spec = find_spec("recbole")  # locates the package without importing it
        carried = [Path(folder) / "dataset_example" / self.dataset for folder in _locations(spec)]
        return [*super()._places(), *carried]


class MovieLens1M(_MovieLens):
    """MovieLens 1M: a million ratings of 6,040 users; the last click of a session is the target.

    Args:
        data_dir: Folder of ``ratings.dat`` and ``movies.dat``, or of RecBole's ``ml-1m.inter`` and ``.item``;
            by default a folder of the cache, filled from GroupLens.
        variant: `gap`: 10 minutes of inactivity start a new session. `window`: 5-minute windows in a day.
        protocol: See `MovieLens100K`.
        url: URL of the archive.
        sessions: Session options that replace the variant's.
        kcore: Filter options that replace the protocol's.
        split: Split options that replace the protocol's.
        examples_per_session: See `SessionDataModule`.
        **kwargs: Arguments of `SessionDataModule`.
    """

    dataset = "ml-1m"
    checksum = "md5:c4d9eecfca2ab87c1945afe126590906"
    members = ("ratings.dat", "movies.dat")

    def __init__(
        self,
        data_dir: str | None = None,
        variant: Literal["gap", "window"] = "gap",
        protocol: Protocol = "paper",
        url: str | None = None,
        *,
        sessions: Sessions | None = None,
        kcore: KCore | None = None,
        split: SplitBy | None = None,
        examples_per_session: ExampleMode = "last",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            data_dir,
            protocol,
            url,
            sessions=sessions or Sessions(by=variant, gap=600.0, window=300.0),
            kcore=kcore,
            split=split,
            examples_per_session=examples_per_session,
            **kwargs,
        )


def _locations(spec: Any) -> list[str]:
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _read_latin(path: Path, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    """Read a table of GroupLens: Latin-1, without a header, ``::`` between values in the .dat files."""
    text = read_bytes(path).decode("latin-1")
    if path.suffix == ".dat":
        text = text.replace("::", "\t")
    return parse_delimited(text.encode(), path, separator=separator, names=names, quoted=False)


def _titled(movies: pl.DataFrame) -> pl.DataFrame:
    """Format RecBole's movie titles like GroupLens' titles: "Toy Story (1995)"."""
    title = pl.col("movie_title").fill_null("")
    if "release_year" in movies.columns:
        year = pl.col("release_year").fill_null("")
        title = pl.when((year == "") | (title == "")).then(title).otherwise(pl.format("{} ({})", title, year))
    return movies.with_columns(title=title)
