"""Events in a folder of Parquet parts: the same examples and the same checks as for one file."""

from __future__ import annotations

import warnings
from pathlib import Path

import polars as pl
import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS
from llm4sbr.datamodules import Columns, KCore, SessionDataModule, Sessions, SplitBy, event_parts

SHOP = {
    "split": SplitBy("column"),
    "kcore": KCore("train", min_item_clicks=2),
}
NOW = 1_700_000_000


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_parts, "_ROWS_AT_ONCE", 7)


def write_parts(
    folder: Path, table: pl.DataFrame, sizes: list[int], name: str = "part-{:02}.parquet"
) -> Path:
    first = 0
    for number, size in enumerate(sizes):
        path = folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        table[first : first + size].write_parquet(path)
        first += size
    assert first >= table.height
    return folder


def clicks(count: int = 30, time: int = NOW) -> pl.DataFrame:
    rows = {
        "session_id": [f"s{n // 3}" for n in range(count)],
        "item_id": [f"i{n % 5}" for n in range(count)],
    }
    return pl.DataFrame({**rows, "timestamp": [time + n for n in range(count)]})


def same(a: SessionDataModule, b: SessionDataModule) -> bool:
    def told(data: SessionDataModule) -> list[object]:
        parts = [data.examples(split) for split in SPLITS]
        return [(one.prefixes(), one.target.tolist(), list(one.session_ids)) for one in parts]

    return a.catalogue == b.catalogue and told(a) == told(b)


@pytest.mark.parametrize("by", ["column", "gap", "window", "user"])
@pytest.mark.parametrize("events", ["events", "events/**/*.parquet"])
def test_parts_give_the_examples_of_one_file(shop: Path, by: str, events: str) -> None:
    """Seen to fail with ids that are numbered anew in each part."""
    table = pl.read_csv(shop / "events.csv", infer_schema=False)
    write_parts(shop / "events", table, [100, 0, 1, 50, table.height], "{0}/part.parquet")
    rules = {**SHOP, "sessions": Sessions(by, gap=700)}  # type: ignore[arg-type]
    if by != "column":
        rules["split"] = SplitBy("temporal", unseen_items="drop")
    one = SessionDataModule(str(shop), **rules)  # type: ignore[arg-type]
    parts = SessionDataModule(str(shop), events, predict_events=str(shop / "events"), **rules)  # type: ignore[arg-type]
    new = SessionDataModule(str(shop), predict_events=str(shop / "events.csv"), **rules)  # type: ignore[arg-type]
    assert same(new, parts)
    assert one.examples("train").prefixes() == parts.examples("train").prefixes()


def test_the_order_of_clicks_without_times_goes_over_all_parts(tmp_path: Path) -> None:
    table = clicks().with_columns(session_id=pl.Series([f"s{n % 4}" for n in range(30)])).drop("timestamp")
    write_parts(tmp_path / "events", table, [10, 10, 10])
    table.write_csv(tmp_path / "events.csv")
    rules = {"items": None, "columns": Columns(time=None), "split": SplitBy("ratio")}
    one, parts = (SessionDataModule(str(tmp_path), name, **rules) for name in ("events.csv", "events"))  # type: ignore[arg-type]
    assert same(one, parts)


def test_hive_columns_are_columns_of_text(tmp_path: Path) -> None:
    for day, part in (("train", [0, 21]), ("test", [21, 30])):
        write_parts(tmp_path / f"events/part={day}/shop=a%20b", clicks()[part[0] : part[1]], [30])
    (tmp_path / "events" / "_SUCCESS").touch()
    (tmp_path / "events" / ".crc.parquet").touch()
    columns = Columns(split="part", session="shop")
    data = SessionDataModule(str(tmp_path), "events", None, columns=columns, split=SplitBy("column"))
    with pytest.raises(InputError, match="session 'a b' is in two splits: test, train"):
        data.prepare_data()
    columns = Columns(split="part")
    data = SessionDataModule(str(tmp_path), "events", None, columns=columns, split=SplitBy("column"))
    assert list(data.examples("test").session_ids) == ["s7", "s8", "s9"]
    moved = tmp_path / "events" / "part=train"
    moved.rename(tmp_path / "events" / "part=training2")  # the same files, another value
    with pytest.raises(InputError, match="unknown split"):
        SessionDataModule(
            str(tmp_path), "events", None, columns=columns, split=SplitBy("column")
        ).prepare_data()


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (20, "item_id", None, r"part-01\.parquet: row 12: the item_id is missing"),
        (29, "session_id", "", r"part-02\.parquet: row 9: the session_id is missing"),
        (12, "timestamp", None, r"part-01\.parquet: row 4: the timestamp is missing"),
        (28, "timestamp", NOW * 1000, r"part-02\.parquet: row 8: .*time_unit to ms"),
    ],
)
def test_bad_rows_are_named_with_their_part(
    tmp_path: Path, row: int, column: str, value: object, message: str
) -> None:
    """Seen to fail with the row of the block. The blocks have seven rows."""
    table = clicks()
    changed = pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column))
    table = table.with_columns(changed.cast(table[column].dtype).alias(column))
    write_parts(tmp_path / "events", table, [9, 12, 9])
    with pytest.raises(InputError, match=message) as caught:
        SessionDataModule(str(tmp_path), "events", None).prepare_data()
    assert "\n" not in str(caught.value)


def test_parts_that_differ_are_an_error_of_one_line(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "events", clicks(), [15, 15])
    data = SessionDataModule(str(tmp_path), "events", None)
    odd = folder / "part-02.parquet"
    for table, message in (
        (clicks().with_columns(session_id=pl.lit(1)), "column 'session_id' is Int32, and String in part-00"),
        (clicks().drop("item_id"), "column 'item_id' is missing, and String in part-00"),
        (clicks().with_columns(price=pl.lit(1.0)), "column 'price' is Float64, and missing in part-00"),
    ):
        table.write_parquet(odd)
        with pytest.raises(InputError, match=message) as caught:
            data.prepare_data()
        assert str(caught.value).startswith(f"{odd}: ")
        assert "\n" not in str(caught.value)
    odd.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"part-02\.parquet: the Parquet file can't be read"):
        data.prepare_data()


def test_a_folder_without_parts_or_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    for events in ("events", "events/*.parquet", "even*"):
        with pytest.raises(InputError, match="there is no Parquet file"):
            SessionDataModule(str(tmp_path), events, None).prepare_data()
    write_parts(tmp_path / "events", clicks()[:0], [0, 0])
    with pytest.raises(InputError, match="the parts have no rows"):
        SessionDataModule(str(tmp_path), "events", None).prepare_data()
    with pytest.raises(InputError, match=r"events/part-00.parquet: a column is missing \(got 'visit'\)"):
        SessionDataModule(str(tmp_path), "events", None, columns=Columns(session="visit")).prepare_data()


def test_the_unit_of_times_is_judged_over_all_parts(tmp_path: Path) -> None:
    """One part in seconds and one in milliseconds is no reason to doubt the unit."""
    write_parts(tmp_path / "events", clicks(), [10, 20])
    data = SessionDataModule(str(tmp_path), "events", None, columns=Columns(time_unit="ms"))
    with pytest.warns(UserWarning, match="in seconds they would lie between 2000 and 2200") as caught:
        data.prepare_data()
    assert len(caught) == 1
    write_parts(tmp_path / "events", clicks(time=NOW * 1000), [30], "part-99.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SessionDataModule(str(tmp_path), "events", None, columns=Columns(time_unit="ms")).prepare_data()


def test_copies_in_different_parts_are_counted_once(tmp_path: Path) -> None:
    write_parts(tmp_path / "events", pl.concat([clicks(), clicks()[3:5]]), [30, 2])
    rules = Sessions("column", duplicates="drop")
    data = SessionDataModule(str(tmp_path), "events", None, sessions=rules)
    with pytest.warns(UserWarning, match=r"2 of 32 rows .* were dropped"):
        data.prepare_data()
    assert sum(len(data.examples(split).clicks) for split in SPLITS[:3]) == 30


def test_a_new_part_is_another_cache_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_parts(tmp_path / "events", clicks(), [30])
    first = SessionDataModule(str(tmp_path), "events", None).fingerprint
    monkeypatch.setattr(SessionDataModule, "load_tables", lambda self: pytest.fail("it was built again"))
    assert SessionDataModule(str(tmp_path), "events", None).fingerprint == first
    monkeypatch.undo()
    write_parts(folder, clicks(time=NOW + 99), [30], "part-01.parquet")
    assert SessionDataModule(str(tmp_path), "events", None).fingerprint != first
