from __future__ import annotations

import random

import polars as pl
import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules.filtering import drop_unseen, k_core, k_core_on_train
from llm4sbr.datamodules.rules import KCore, Sessions, SplitBy
from llm4sbr.datamodules.sessionize import by_gap, by_key, by_window, sessionize
from llm4sbr.datamodules.splits import cut_at_random, sample_sessions, split_sessions


def table(*rows: tuple[str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["key", "item_id", "timestamp"], orient="row")


def sessions_of(clicks: pl.DataFrame) -> dict[str, list[str]]:
    return {str(key[0]): part["item_id"].to_list() for key, part in clicks.group_by("session_id")}


def many(count: int = 40, length: int = 3) -> pl.DataFrame:
    rows = [(f"s{n}", f"i{n}-{k}", float(100 * n + k)) for n in range(count) for k in range(length)]
    return by_key(table(*rows))


def parts_of(clicks: pl.DataFrame) -> dict[str, str]:
    pairs = clicks.select("session_id", "part").unique()
    assert pairs.height == clicks["session_id"].n_unique()
    return dict(pairs.iter_rows())


def test_order_is_time_then_file() -> None:
    events = table(("b", "3", 9), ("a", "x", 1), ("b", "1", 5), ("b", "2", 5), ("a", "y", 1))
    ordered = by_key(events)
    assert ordered["session_id"].to_list() == ["b", "b", "b", "a", "a"]
    assert ordered["item_id"].to_list() == ["1", "2", "3", "x", "y"]


def test_gap_matches_a_loop_by_hand() -> None:
    dice = random.Random(3)
    rows = [(f"u{dice.randrange(4)}", str(n), float(dice.randrange(4000))) for n in range(200)]
    expected: dict[str, list[str]] = {}
    for user in {row[0] for row in rows}:
        number, last = 0, float("-inf")
        for _, item, time in sorted((row for row in rows if row[0] == user), key=lambda row: row[2]):
            number += time - last >= 60
            expected.setdefault(f"{user}#{number}", []).append(item)
            last = time
    assert sessions_of(by_gap(table(*rows), 60)) == expected


def test_windows_stay_within_a_day() -> None:
    day = 86_400.0
    events = table(("u", "a", day - 1), ("u", "b", day), ("u", "c", day + 699), ("u", "d", day + 700))
    # 700 does not divide a day: the last window of a day is cut short at midnight.
    assert sessions_of(by_window(events, 700)) == {"u#1": ["a"], "u#2": ["b", "c"], "u#3": ["d"]}
    # the same window of the next day is another session
    assert sessions_of(by_window(table(("u", "a", 5), ("u", "b", day + 5)), 700)) == {
        "u#1": ["a"],
        "u#2": ["b"],
    }


def test_a_user_is_a_session_and_users_never_mix() -> None:
    events = table(("u", "a", 0), ("v", "b", 1), ("u", "c", 99_999))
    assert sessions_of(sessionize(events, Sessions(by="user"))) == {"u": ["a", "c"], "v": ["b"]}
    assert sessions_of(sessionize(events, Sessions(by="gap", gap=10))) == {
        "u#1": ["a"],
        "u#2": ["c"],
        "v#1": ["b"],
    }


def test_k_core_reaches_the_fixed_point() -> None:
    # dropping x leaves s2 too short, which leaves y with one click, which leaves s1 too short
    clicks = by_key(table(("s1", "y", 1), ("s1", "a", 2), ("s2", "y", 1), ("s2", "x", 2), ("s3", "a", 1)))
    assert k_core(clicks, min_item_clicks=2, min_session_length=2).height == 0
    dice = random.Random(1)
    rows = [(f"s{dice.randrange(30)}", f"i{dice.randrange(40)}", float(n)) for n in range(200)]
    core = k_core(by_key(table(*rows)), min_item_clicks=4, min_session_length=3)
    assert core.height
    assert core["item_id"].value_counts()["count"].min() >= 4  # type: ignore[operator]
    assert core["session_id"].value_counts()["count"].min() >= 3  # type: ignore[operator]


def test_k_core_on_training_counts_training_only() -> None:
    rows = [
        ("t1", "a"),
        ("t1", "b"),
        ("t2", "a"),
        ("t2", "c"),
        ("x", "a"),
        ("x", "c"),
        ("x", "a"),
        ("y", "a"),
    ]
    clicks = pl.DataFrame(rows, schema=["session_id", "item_id"], orient="row").with_columns(
        part=pl.when(pl.col("session_id").is_in(["x", "y"])).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    kept = k_core_on_train(clicks, KCore(over="train", min_item_clicks=2))
    assert kept.rows() == [
        ("t1", "a", "train"),
        ("t2", "a", "train"),
        *[("x", "a", "test")] * 2,
        ("y", "a", "test"),
    ]
    assert "y" not in k_core_on_train(clicks, KCore("train", 1, 2))["session_id"].to_list()
    assert set(drop_unseen(clicks)["item_id"]) == {"a", "b", "c"}
    assert set(drop_unseen(clicks.filter(pl.col("session_id") != "t2"))["item_id"]) == {"a", "b"}


def test_temporal_split_puts_the_latest_last_in_every_step() -> None:
    parts = parts_of(split_sessions(many(), SplitBy("temporal", test_ratio=0.25, val_ratio=0.2), seed=0))
    assert [parts[f"s{n}"] for n in range(40)] == ["train"] * 24 + ["validate"] * 6 + ["test"] * 10


def test_temporal_ties_go_by_session_order() -> None:
    clicks = many(10).with_columns(timestamp=pl.lit(1.0))
    parts = parts_of(split_sessions(clicks, SplitBy("temporal", test_ratio=0.2, val_ratio=0), seed=0))
    assert [name for name, part in parts.items() if part == "test" and name not in ("s8", "s9")] == []


def test_ratio_split_follows_seed_and_not_the_order_of_rows() -> None:
    rules = SplitBy("ratio", test_ratio=0.2, val_ratio=0.1)
    parts = parts_of(split_sessions(many(), rules, seed=0))
    assert sorted(parts.values()) == ["test"] * 8 + ["train"] * 29 + ["validate"] * 3
    shuffled = by_key(many().sample(fraction=1, shuffle=True, seed=1).rename({"session_id": "key"}))
    assert parts_of(split_sessions(shuffled, rules, seed=0)) == parts
    assert parts_of(split_sessions(many(), rules, seed=1)) != parts


def test_a_sample_takes_from_each_part_and_lies_in_a_larger_one() -> None:
    whole = split_sessions(many(200), SplitBy("ratio", test_ratio=0.2, val_ratio=0.25), 0)
    some, more = (parts_of(sample_sessions(whole, share, 0)) for share in (0.1, 0.3))
    assert {part: list(some.values()).count(part) for part in set(some.values())} == {
        "train": 12,
        "validate": 4,
        "test": 4,
    }
    assert some.items() <= more.items() <= parts_of(whole).items()
    assert parts_of(sample_sessions(whole[::-1], 0.1, 0)) == some  # not by the order of rows
    assert parts_of(sample_sessions(whole, 0.1, 1)) != some
    assert sample_sessions(whole, 1, 0) is whole
    assert len(parts_of(sample_sessions(whole, 0.001, 0))) == 3  # one of each part at least


@pytest.mark.parametrize(
    ("sessions", "share", "held"),
    [(9, 0.0, 0), (9, 0.01, 1), (9, 0.5, 4), (9, 0.99, 8), (1, 0.5, 0), (0, 0.5, 0)],
)
def test_a_cut_at_random_has_one_session_at_least_and_never_all(
    sessions: int, share: float, held: int
) -> None:
    cut = cut_at_random([f"s{n}" for n in range(sessions)], 0, share)
    assert len(cut) == held
    assert cut <= set(range(sessions))


def column(*names: str) -> pl.DataFrame:
    rows = [(f"s{n}", "i", float(n), name) for n, name in enumerate(names)]
    return pl.DataFrame(rows, schema=["session_id", "item_id", "timestamp", "split"], orient="row")


def test_column_split_cuts_validation_from_training_unless_it_is_given() -> None:
    rules = SplitBy("column", val_ratio=0.2)
    parts = parts_of(split_sessions(column(*["train"] * 10, *["test"] * 5), rules, seed=0))
    assert [parts[f"s{n}"] for n in range(10, 15)] == ["test"] * 5
    assert sorted(parts.values()).count("validate") == 2
    for name in ("valid", "validation", "val", "validate"):
        given = parts_of(split_sessions(column("train", "train", name, "test"), rules, seed=0))
        assert given == {"s0": "train", "s1": "train", "s2": "validate", "s3": "test"}


def test_column_split_refuses_mixed_and_unknown() -> None:
    mixed = column("train", "test").with_columns(session_id=pl.lit("s7"))
    with pytest.raises(InputError, match="session 's7' is in two splits: test, train"):
        split_sessions(mixed, SplitBy("column"), seed=0)
    with pytest.raises(InputError, match=r"session 's1' has an unknown split \(got 'holdout'\)"):
        split_sessions(column("train", "holdout"), SplitBy("column"), seed=0)
    with pytest.raises(InputError, match="unknown split"):
        split_sessions(column("train").with_columns(split=pl.lit(None, pl.String)), SplitBy("column"), seed=0)


@pytest.mark.parametrize("by", ["temporal", "ratio"])
def test_a_few_sessions_still_fill_every_split(by: str) -> None:
    parts = parts_of(split_sessions(many(3), SplitBy(by), seed=0))  # type: ignore[arg-type]
    assert sorted(parts.values()) == ["test", "train", "validate"]
    assert parts_of(split_sessions(many(1), SplitBy(by), seed=0)) == {"s0": "train"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Sessions("gap", gap=0),
        lambda: SplitBy("ratio", test_ratio=1.0),
        lambda: SplitBy("ratio", val_ratio=-0.1),
        lambda: KCore("all", min_item_clicks=0),
    ],
)
def test_rules_out_of_range_are_refused(bad: object) -> None:
    with pytest.raises(InputError):
        bad()  # type: ignore[operator]
