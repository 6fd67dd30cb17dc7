"""Amazon Beauty 2014, 5-core: a user's history is a session."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.errors import InputError

from .download import fetch
from .pipeline import Recipe
from .rules import Columns, KCore, Protocol, Sessions, SplitBy
from .session_module import SessionDataModule
from .table_files import read_bytes
from .tables import read_events, read_items

URL = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
REVIEWS, META = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"
_MALFORMED = (
    AttributeError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)  # errors of `ast.literal_eval` and of what follows it
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]+)['"]""")


class AmazonBeauty(SessionDataModule):
    """Amazon Beauty, from ``events.csv`` and ``items.csv`` with a split column, or from the raw 2014 dumps.

    The dumps have no published split, so the `paper` protocol splits them at random. They have no published
    checksums either, so they are downloaded only if the user gives a checksum for each.

    Args:
        data_dir: Folder of the tables or the dumps; by default a folder of the cache.
        protocol: `paper`: the published split with every item and session. `temporal`: a leak-free split by
            time, filtered on training only, without unseen items. It needs the raw dumps, because the
            prepared tables hold positions instead of times.
        checksums: Mapping from file name to ``md5:...`` or ``sha256:...``, for downloading the dumps.
        url: URL of the folder with the dumps.
        sessions: Session options that replace the protocol's.
        kcore: Filter options that replace the protocol's.
        split: Split options that replace the protocol's.
        **kwargs: Arguments of `SessionDataModule`.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        protocol: Protocol = "paper",
        checksums: dict[str, str] | None = None,
        url: str = URL,
        *,
        sessions: Sessions | None = None,
        kcore: KCore | None = None,
        split: SplitBy | None = None,
        **kwargs: Any,
    ) -> None:
        paper = protocol == "paper"
        super().__init__(
            data_dir,
            sessions=sessions or Sessions(by="column"),
            kcore=kcore
            or (KCore(over="all") if paper else KCore("train", min_item_clicks=5, min_session_length=2)),
            split=split or (SplitBy(by="column") if paper else SplitBy(by="temporal", unseen_items="drop")),
            **kwargs,
        )
        self.checksums, self.url = checksums or {}, url

    def fetch(self) -> None:
        """Use existing tables or dumps, otherwise download the dumps.

        Raises:
            InputError: If there are no files and a checksum is missing; the message says where to get them.
        """
        if all(file.is_file() for file in self.source_files()):
            return
        for name in (REVIEWS, META):
            if name not in self.checksums:
                raise InputError(
                    f"neither {self.events} and {self.items} nor {REVIEWS} and {META} are here",
                    path=self._folder,
                    hint=f"`data_dir` names another folder. The last two are at {self.url}; pass a checksum "
                    "for each to download them",
                )
        for name in (REVIEWS, META):
            fetch(self.url + name, self._folder / name, self.checksums[name])

    def source_files(self) -> list[Path]:
        """The two tables if they exist, otherwise the two dumps."""
        tables = [self._folder / name for name in (self.events, self.items) if name is not None]
        return tables if tables[0].is_file() else [self._folder / REVIEWS, self._folder / META]

    def recipe(self) -> Recipe:
        """Recipe for tables or dumps; dumps have no split column, and their sessions are users."""
        recipe = super().recipe()
        if not self._raw or recipe.split.by != "column":
            return recipe
        return replace(recipe, split=replace(recipe.split, by="ratio"))

    def load_tables(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Clicks and titles of the tables or the dumps.

        Raises:
            InputError: If a table without times is to be split by time, or a line of a dump is malformed.
        """
        if self._raw:
            reviews, meta = self.source_files()
            events = read_reviews(reviews)
            return events, read_meta(meta, set(events["item_id"].to_list()))
        found, items = super().load_tables()
        assert isinstance(found, pl.DataFrame)  # `source_files` names single files
        events = found
        position = pl.col("timestamp").rank("ordinal").over("key") - 1
        if self.split.by == "temporal" and bool(
            events.select((position == pl.col("timestamp")).all()).item()
        ):
            raise InputError(
                "the timestamps are positions in the session, so it can't be split by time",
                path=self.source_files()[0],
                hint=f"Put {REVIEWS} and {META} in a folder of their own and use that",
            )
        return events, items

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir) if self.data_dir else cache_root(self.cache_dir) / "raw" / "amazon-beauty"

    @property
    def _raw(self) -> bool:
        return self.source_files()[0].name == REVIEWS


def read_reviews(path: Path) -> pl.DataFrame:
    """Read the clicks of a review dump, one JSON object per line."""
    rows = []
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        try:
            review = json.loads(line)
            user, item, time = review["reviewerID"], review["asin"], review["unixReviewTime"]
            if not (isinstance(user, str) and isinstance(item, str)):
                raise TypeError("an id that is not text")
            rows.append((user, item, float(time)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(f"the review can't be read ({error!r})", path=path, row=number) from error
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return read_events(path, Columns(), key="user_id", table=table)


def read_meta(path: Path, wanted: set[str]) -> pl.DataFrame:
    """Read titles of `wanted` items from a metadata dump: one Python literal per line, never executed."""
    rows = []
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        name = _ASIN.search(line)
        if name is not None and name[1].decode("utf-8", "replace") not in wanted:
            continue  # parsing is slow, and most products have no review here
        try:
            product = ast.literal_eval(line.decode("utf-8"))
            item, title = product["asin"], product.get("title", "")
            if not (isinstance(item, str) and isinstance(title, str | None)):
                raise TypeError("an id or title that is not text")
            rows.append((item, title))
        except _MALFORMED as error:
            raise InputError(f"the product can't be read ({error!r})", path=path, row=number) from error
    table = pl.DataFrame(rows, schema={"item_id": pl.String, "title": pl.String}, orient="row")
    return read_items(path, Columns(), table)
