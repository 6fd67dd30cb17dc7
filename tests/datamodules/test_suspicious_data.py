"""Data that are read, but mean something else than they seem to: times, copies, ids and titles."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS
from llm4sbr.datamodules import Columns, SessionDataModule, Sessions
from llm4sbr.datamodules.timestamps import parse_timestamps

Write = Callable[[str, str | bytes], Path]
NOW = 1_700_000_000  # November 2023
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@pytest.mark.parametrize(
    ("unit", "size"),
    [(a, b) for a in UNITS for b in UNITS if UNITS[a] < UNITS[b]],
)
@pytest.mark.parametrize("text", [True, False])
def test_a_time_too_large_for_its_unit_names_the_row_and_the_unit(unit: str, size: str, text: bool) -> None:
    """Seen to fail without the check: sessions of one click were trained on."""
    numbers = [NOW * UNITS[unit], NOW * UNITS[size] + 7]
    column = pl.Series("t", [str(n) for n in numbers] if text else numbers)
    with pytest.raises(InputError, match=rf"row 2: .*in the year [\d,]+ .*time_unit to {size} "):
        parse_timestamps(column, path="events.csv", time_unit=unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_a_time_that_fits_its_unit_is_read_without_a_word(unit: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = [str(NOW * UNITS[unit]), f"{NOW * UNITS[unit]}.5", "0", "12", str(3 * UNITS[unit])]
        found = parse_timestamps(pl.Series(values), time_unit=unit)  # type: ignore[arg-type]
    assert found[0] == NOW
    assert found[1] == pytest.approx(NOW + 0.5 / UNITS[unit])
    assert found[4] == 3


def test_a_time_far_too_small_for_its_unit_is_a_warning() -> None:
    """Seconds with a fraction that are read as milliseconds: clicks of an hour lie within 4 seconds."""
    with pytest.warns(UserWarning, match="in seconds they would lie between 2000 and 2200"):
        parse_timestamps(pl.Series([f"{NOW}.25", f"{NOW + 60}.5"]), time_unit="ms")


def write_log(
    write: Write, copies: int, item: str = "i{}", listed: str = "i{}", title: str = "Soap {}"
) -> str:
    rows = [f"s{s},{item.format((s + c) % 7)},{60 * s + c}" for s in range(30) for c in range(3)]
    write("log/events.csv", "\n".join(["session_id,item_id,timestamp", *rows, *rows[:copies], ""]))
    items = [f"{listed.format(n)},{title.format(n)}" for n in range(7)]
    return str(write("log/items.csv", "\n".join(["item_id,title", *items, ""])).parent)


def told(module: SessionDataModule) -> list[str]:
    """Warnings of a preparation."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module.prepare_data()
    return [str(one.message) for one in caught]


def test_exact_copies_are_counted_and_dropped_by_choice(write: Write) -> None:
    """Seen to fail with the copies kept in both cases."""
    folder = write_log(write, copies=9)
    (kept,) = told(module := SessionDataModule(folder))
    assert "9 of 99 rows (9.1%) are exact copies" in kept
    assert "sessions.duplicates" in kept
    (dropped,) = told(less := SessionDataModule(folder, sessions=Sessions("column", duplicates="drop")))
    assert "9 of 99 rows" in dropped
    assert "dropped" in dropped

    def clicks(one: SessionDataModule) -> int:
        return sum(len(one.examples(split).clicks) for split in SPLITS[:3])

    assert (clicks(module), clicks(less)) == (99, 90)
    assert not told(SessionDataModule(write_log(write, copies=0)))


def test_copies_among_the_sessions_to_recommend_for(write: Write) -> None:
    folder = write_log(write, copies=0)
    new = write("new.csv", "session_id,item_id,timestamp\nn,i1,5\nn,i1,5\nn,i2,6\n")
    rules = Sessions("column", duplicates="drop")
    (text,) = told(module := SessionDataModule(folder, predict_events=str(new), sessions=rules))
    assert "1 of 3 rows of the sessions to recommend for" in text
    assert len(module.examples("predict").prefix(0)) == 2


@pytest.mark.parametrize(
    ("item", "listed"), [("{}.0", "{}"), ("00{}", "{}"), ("{}", " {} "), ("a{}", "A{}"), ("{}", "0{}.0")]
)
def test_ids_that_would_join_if_written_alike_are_named(write: Write, item: str, listed: str) -> None:
    folder = write_log(write, copies=0, item=item, listed=f'"{listed}"')
    text = "\n".join(told(SessionDataModule(folder)))
    alike = f"7 of them would have one if ids were written alike: '{item.format(0)}' in the events is"
    assert alike in text
    assert "no clicked item has a title" in text
    with pytest.raises(InputError, match="written alike"):
        SessionDataModule(folder, missing_titles="error").prepare_data()


def test_ids_that_differ_are_not_called_alike(write: Write) -> None:
    text = "\n".join(told(SessionDataModule(write_log(write, copies=0, item="x{}", listed="y{}"))))
    assert "7 clicked items have no row" in text
    assert "alike" not in text


@pytest.mark.parametrize("title", ["", '" "'])
def test_an_items_table_without_a_title_is_told(write: Write, title: str) -> None:
    (text,) = told(SessionDataModule(write_log(write, copies=0, title=title)))
    assert "no clicked item has a title" in text


def test_every_warning_is_given_in_every_run(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the warnings given when the cache is built only."""
    folder = write_log(write, copies=4, item="{}.0", listed="{}")
    first = told(SessionDataModule(folder))
    assert len(first) == 3
    monkeypatch.setattr(SessionDataModule, "load_tables", lambda self: pytest.fail("it was built again"))
    assert told(SessionDataModule(folder)) == first


def test_microseconds_make_the_same_sessions_as_seconds(write: Write) -> None:
    rows = [(f"u{n % 3}", f"i{n % 5}", NOW + 400 * n) for n in range(60)]
    lines = [f"{user},{item},{time * 10**6}" for user, item, time in rows]
    write("us/events.csv", "\n".join(["user_id,item_id,timestamp", *lines, ""]))
    rules = Sessions("gap", gap=1201)
    module = SessionDataModule(
        str(write("us/items.csv", "item_id,title\n").parent), columns=Columns(time_unit="us"), sessions=rules
    )
    assert len(module.examples("train").session_ids) + len(module.examples("test").session_ids) <= 3
