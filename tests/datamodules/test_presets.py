from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import (
    AmazonBeauty,
    AuthorPickles,
    Columns,
    ExampleDataModule,
    MovieLens1M,
    MovieLens100K,
    RecBoleAtomic,
    SessionDataModule,
    SplitBy,
)
from llm4sbr.datamodules.rules import KCore

Write = Callable[[str, "str | bytes"], Path]
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:jsonargparse", "ignore:[\\s\\S]*instantiate_classes"
)
ROOT = Path(__file__).resolve().parents[2]
BEAUTY = ROOT.parent / "shared" / "data" / "beauty"

# 12 users, two bursts of 4 clicks an hour apart, on 6 items; every item is clicked often.
CLICKS = [
    (u, 1 + (u + k) % 6, 100_000 * u + 3600 * (k // 4) + 10 * k) for u in range(1, 13) for k in range(8)
]
YEARS = [
    (1, "Toy Story", "1995"),
    (2, "Léon", "1994"),
    (3, "No Year", ""),
    (4, 'The "Q"', "1990"),
    (5, "E", "1"),
    (6, "F", "2"),
]


def recbole(write: Write, name: str = "ml-100k") -> Path:
    rows = "".join(f"{user}\t{item}\t3\t{time}\n" for user, item, time in CLICKS)
    items = "".join(f"{item}\t{title}\t{year}\tDrama\n" for item, title, year in YEARS)
    write(f"rb/{name}.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    return write(f"rb/{name}.item", header + items).parent


def grouplens(write: Write, size: str) -> Path:
    titled = [(item, f"{title} ({year})" if year else title) for item, title, year in YEARS]
    if size == "1m":
        write("gl/ratings.dat", "".join(f"{user}::{item}::3::{time}\n" for user, item, time in CLICKS))
        movies = "".join(f"{item}::{title}::Drama\n" for item, title in titled)
        return write("gl/movies.dat", movies.encode("latin-1")).parent
    write("gl/u.data", "".join(f"{user}\t{item}\t3\t{time}\n" for user, item, time in CLICKS))
    movies = "".join(f"{item}|{title}|01-Jan-1995||0|1\n" for item, title in titled)
    return write("gl/u.item", movies.encode("latin-1")).parent


def test_both_forms_of_movielens_100k_agree(write: Write) -> None:
    data = [MovieLens100K(str(folder)) for folder in (recbole(write), grouplens(write, "100k"))]
    assert data[0].catalogue == data[1].catalogue
    assert data[0].catalogue.titles == (
        "Toy Story (1995)",
        "Léon (1994)",
        "No Year",
        'The "Q" (1990)',
        "E (1)",
        "F (2)",
    )
    assert data[0].examples("train").prefixes() == data[1].examples("train").prefixes()
    assert data[0].examples("test").session_ids == ("12#1", "12#2")


def test_movielens_100k_comes_from_an_installed_recbole_without_running_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recbole(write)
    write("site/recbole/__init__.py", "raise RuntimeError('imported')")
    (tmp_path / "site/recbole/dataset_example").mkdir()
    folder.rename(tmp_path / "site/recbole/dataset_example/ml-100k")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert MovieLens100K().num_items == 6
    assert "recbole" not in sys.modules


def test_movielens_1m_variants(write: Write) -> None:
    folder = str(grouplens(write, "1m"))
    gap, window = MovieLens1M(folder), MovieLens1M(folder, variant="window")
    assert gap.catalogue.titles[1] == "Léon (1994)"
    assert all(len(prefix) == 3 for prefix in gap.examples("train").prefixes())  # the last of 4 is the target
    assert (gap.sessions.by, gap.sessions.gap, window.sessions.by, window.sessions.window) == (
        "gap",
        600,
        "window",
        300,
    )
    assert len(MovieLens1M(folder, examples_per_session="prefixes").examples("test")) > len(
        gap.examples("test")
    )


@pytest.mark.parametrize("preset", [MovieLens100K, MovieLens1M])
def test_the_temporal_protocol_learns_nothing_from_later(
    preset: type[SessionDataModule], write: Write
) -> None:
    """Whatever happens in the test sessions, training and the catalogue stay as they are."""
    folder = grouplens(write, "100k" if preset is MovieLens100K else "1m")
    ratings = folder / ("u.data" if preset is MovieLens100K else "ratings.dat")
    before = preset(str(folder), protocol="temporal")  # type: ignore[call-arg]
    before.prepare_data()
    text = ratings.read_text()
    ratings.write_text(text.replace("\n12\t", "\n12\t9").replace("\n12::", "\n12::9"))  # all on new items
    assert ratings.read_text() != text
    after = preset(str(folder), protocol="temporal")  # type: ignore[call-arg]
    assert after.catalogue == before.catalogue
    assert after.examples("train").prefixes() == before.examples("train").prefixes()
    assert len(before.examples("test")) > len(after.examples("test")) == 0


def test_recbole_atomic_of_any_name(write: Write) -> None:
    folder = recbole(write, "shop")
    data = RecBoleAtomic(str(folder), columns=Columns(title="movie_title", text=("class",)))
    assert data.catalogue.titles[0] == "Toy Story, Drama"
    (folder / "shop.item").unlink()
    assert RecBoleAtomic(str(folder)).catalogue.titles == ("",) * 6
    write("rb/other.inter", "user_id:token\n")
    with pytest.raises(InputError, match=r"holds 2 \.inter files"):
        RecBoleAtomic(str(folder)).prepare_data()
    assert RecBoleAtomic(str(folder), name="shop").num_items == 6
    write("rb/other.inter", "user_id:token\tuser_id:float\n1\t2\n")
    with pytest.raises(InputError, match=r"other\.inter: two columns have the same name \(got 'user_id'\)"):
        RecBoleAtomic(str(folder), name="other").prepare_data()


def dumps(write: Write, bad: str = "") -> Path:
    reviews = [
        {"reviewerID": f"U{u}", "asin": f"0{item}", "unixReviewTime": time} for u, item, time in CLICKS
    ]
    write("raw/reviews_Beauty_5.json.gz", gzip.compress("\n".join(map(json.dumps, reviews)).encode()))
    products = [{"asin": f"0{item}", "title": f"It's {title}"} for item, title, _ in YEARS[:-1]]
    lines = [*map(repr, products), "{'asin': '06'}", "{'asin': 'unwanted', broken", bad]
    return write("raw/meta_Beauty.json.gz", gzip.compress("\n".join(lines).strip().encode())).parent


def test_beauty_from_the_raw_dumps(write: Write) -> None:
    folder = dumps(write)
    data = AmazonBeauty(str(folder))
    assert data.catalogue.item_ids == ("01", "02", "03", "04", "05", "06")
    assert data.catalogue.titles == (
        "It's Toy Story",
        "It's Léon",
        "It's No Year",
        'It\'s The "Q"',
        "It's E",
        "",
    )
    assert sum(len(data.examples(split).session_ids) for split in ("train", "validate", "test")) == 12
    temporal = AmazonBeauty(str(folder), protocol="temporal")
    assert temporal.examples("test").session_ids == ("U12",)


def test_a_literal_that_would_run_is_refused(write: Write, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = dumps(write, bad=f"{{'asin': '06', 'title': open({str(mark)!r}, 'w')}}")
    with pytest.raises(InputError, match=r"meta_Beauty\.json\.gz: row 8: the product can't be read"):
        AmazonBeauty(str(folder)).prepare_data()
    assert not mark.exists()


@pytest.mark.parametrize(
    "bad", ["{", '{"reviewerID": "U1", "asin": "01"}', '{"reviewerID": 1, "asin": "01", "unixReviewTime": 1}']
)
def test_a_review_that_cannot_be_read_is_named(write: Write, bad: str) -> None:
    folder = dumps(write)
    good = '{"reviewerID": "U1", "asin": "01", "unixReviewTime": 1}'
    write("raw/reviews_Beauty_5.json.gz", gzip.compress(f"{good}\n{bad}\n".encode()))
    with pytest.raises(InputError, match=r"reviews_Beauty_5\.json\.gz: row 2: the review can't be read"):
        AmazonBeauty(str(folder)).prepare_data()


def test_beauty_with_positions_for_times_cannot_be_split_by_time(write: Write) -> None:
    write("b/items.csv", "item_id,title\nx,X\ny,Y\n")
    rows = "".join(f"s{n},{item},{k},train\n" for n in range(20) for k, item in enumerate("xyx"))
    folder = write("b/events.csv", "session_id,item_id,timestamp,split\n" + rows).parent
    assert AmazonBeauty(str(folder)).num_items == 2
    with pytest.raises(InputError, match=r"events\.csv: the timestamps are positions"):
        AmazonBeauty(str(folder), protocol="temporal").prepare_data()
    assert AmazonBeauty(str(folder), split=SplitBy("ratio")).num_items == 2


def parse(*arguments: str) -> ExampleDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ExampleDataModule, "data", fail_untyped=False)
    data = parser.instantiate_classes(parser.parse_args(list(arguments))).data
    assert isinstance(data, ExampleDataModule)
    return data


@pytest.mark.parametrize(
    ("name", "kind"), [("beauty", AmazonBeauty), ("ml-100k", MovieLens100K), ("ml-1m", MovieLens1M)]
)
def test_configs_parse_and_give_way_to_the_command_line(name: str, kind: type) -> None:
    config = str(ROOT / "experiments" / "data" / f"{name}.yaml")
    data = parse(
        "--data",
        config,
        "--data.data_dir",
        "elsewhere",
        "--data.batch_size",
        "7",
        "--data.protocol",
        "temporal",
    )
    assert type(data) is kind
    assert (data.data_dir, data.batch_size, data.max_length, data.kcore.over) == ("elsewhere", 7, 50, "train")


def test_groups_are_set_in_yaml() -> None:
    """YAML reads a bare ``on`` as true, so no field may be called that."""
    data = parse("--data", str(ROOT / "experiments" / "data" / "beauty-core.yaml"))
    assert data.kcore == KCore(over="all", min_item_clicks=40, min_session_length=3)
    assert data.split == SplitBy(by="column", sample=0.3)


def test_groups_are_set_from_the_command_line() -> None:
    data = parse(
        "--data", "SessionDataModule", "--data.split.val_ratio", "0.3", "--data.columns.text", "[brand]"
    )
    assert data.split == SplitBy("temporal", val_ratio=0.3)
    assert data.columns.text == ("brand",)
    assert isinstance(parse("--data", "AuthorPickles", "--data.data_dir", "x"), AuthorPickles)


def test_the_bare_folder_cannot_be_imported() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import datamodules"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "import llm4sbr.datamodules, not the bare folder" in found.stderr


@pytest.mark.data
@pytest.mark.skipif(not BEAUTY.is_dir(), reason=f"the Beauty data are not at {BEAUTY}")
class TestRealBeauty:
    def test_published_counts(self) -> None:
        data = AmazonBeauty(str(BEAUTY))
        sizes = {split: len(data.examples(split)) for split in ("train", "validate", "test")}  # type: ignore[arg-type]
        assert sizes["train"] + sizes["validate"] == 158_717
        assert sizes["test"] == 17_422
        assert data.num_items == 12_101
        assert sum(len(data.examples(split).session_ids) for split in ("train", "validate", "test")) == 22_363  # type: ignore[arg-type]
        assert len(data.examples("test").session_ids) == 2_237
        assert sum(title == "" for title in data.catalogue.titles) == 7

    def test_batches(self) -> None:
        batch = next(iter(AmazonBeauty(str(BEAUTY)).train_dataloader()))
        assert batch.item_ids.shape == (200, int(batch.lengths.max()))
        assert torch.equal(batch.item_ids > 0, batch.padding_mask())
        assert int(batch.target.min()) >= 1
        assert int(batch.target.max()) <= 12_101
