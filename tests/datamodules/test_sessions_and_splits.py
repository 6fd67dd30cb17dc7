from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules.clicks import ClickTable
from llm4sbr.datamodules.filtering import drop_unseen, k_core, k_core_on_train
from llm4sbr.datamodules.rules import KCore, Sessions, SplitBy
from llm4sbr.datamodules.sessionize import in_order, sessionize
from llm4sbr.datamodules.splits import Parts, cut_at_random, sample_sessions, split_sessions

NAMES = ("train", "validate", "test", "absent")


def table(*rows: tuple[str, str, float]) -> ClickTable:
    return ClickTable.of(pl.DataFrame(rows, schema=["key", "item_id", "timestamp"], orient="row"))


def rows_of(clicks: ClickTable) -> list[tuple[str, str]]:
    """Session and item of every click, by their ids."""
    keys, items = clicks.keys.gather(clicks.key), clicks.items.gather(clicks.item)
    return list(zip(keys.to_list(), items.to_list(), strict=True))


def sessions_of(clicks: ClickTable) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for session, item in rows_of(clicks):
        found.setdefault(session, []).append(item)
    return found


def gap(events: ClickTable, seconds: float) -> dict[str, list[str]]:
    return sessions_of(sessionize(events, Sessions("gap", gap=seconds)))


def window(events: ClickTable, seconds: float) -> dict[str, list[str]]:
    return sessions_of(sessionize(events, Sessions("window", window=seconds)))


def many(count: int = 40, length: int = 3) -> ClickTable:
    rows = [(f"s{n}", f"i{n}-{k}", float(100 * n + k)) for n in range(count) for k in range(length)]
    return in_order(table(*rows))


def parts_of(clicks: ClickTable, parts: Parts) -> dict[str, str]:
    """Part of every session that has a click."""
    return {clicks.keys[key]: NAMES[parts[key]] for key in np.unique(clicks.key).tolist()}


def split(clicks: ClickTable, rules: SplitBy, seed: int = 0) -> dict[str, str]:
    return parts_of(clicks, split_sessions(clicks, rules, seed))


def test_order_is_time_then_file() -> None:
    events = table(("b", "3", 9), ("a", "x", 1), ("b", "1", 5), ("b", "2", 5), ("a", "y", 1))
    assert rows_of(in_order(events)) == [("b", "1"), ("b", "2"), ("b", "3"), ("a", "x"), ("a", "y")]


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
    assert gap(table(*rows), 60) == expected


def test_windows_stay_within_a_day() -> None:
    day = 86_400.0
    events = table(("u", "a", day - 1), ("u", "b", day), ("u", "c", day + 699), ("u", "d", day + 700))
    # 700 does not divide a day: the last window of a day is cut short at midnight.
    assert window(events, 700) == {"u#1": ["a"], "u#2": ["b", "c"], "u#3": ["d"]}
    # the same window of the next day is another session
    assert window(table(("u", "a", 5), ("u", "b", day + 5)), 700) == {
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
    clicks = in_order(table(("s1", "y", 1), ("s1", "a", 2), ("s2", "y", 1), ("s2", "x", 2), ("s3", "a", 1)))
    assert len(k_core(clicks, KCore("all", 2, 2))) == 0
    dice = random.Random(1)
    rows = [(f"s{dice.randrange(30)}", f"i{dice.randrange(40)}", float(n)) for n in range(200)]
    core = k_core(in_order(table(*rows)), KCore("all", 4, 3))
    sessions, items = zip(*rows_of(core), strict=True)
    assert min(Counter(items).values()) >= 4
    assert min(Counter(sessions).values()) >= 3


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
    clicks = table(*((session, item, n) for n, (session, item) in enumerate(rows)))
    training = np.array([not session.startswith(("x", "y")) for session in clicks.keys])
    kept = k_core_on_train(clicks, training, KCore(over="train", min_item_clicks=2))
    assert rows_of(kept) == [("t1", "a"), ("t2", "a"), ("x", "a"), ("x", "a"), ("y", "a")]
    assert "y" not in sessions_of(k_core_on_train(clicks, training, KCore("train", 1, 2)))
    assert {item for _, item in rows_of(drop_unseen(clicks, training))} == {"a", "b", "c"}
    without = clicks.take(clicks.key != clicks.keys.to_list().index("t2"))
    assert {item for _, item in rows_of(drop_unseen(without, training))} == {"a", "b"}


def test_temporal_split_puts_the_latest_last_in_every_step() -> None:
    parts = split(many(), SplitBy("temporal", test_ratio=0.25, val_ratio=0.2))
    assert [parts[f"s{n}"] for n in range(40)] == ["train"] * 24 + ["validate"] * 6 + ["test"] * 10


def test_temporal_ties_go_by_session_order() -> None:
    clicks = replace(many(10), time=np.ones(30))
    parts = split(clicks, SplitBy("temporal", test_ratio=0.2, val_ratio=0))
    assert [name for name, part in parts.items() if part == "test" and name not in ("s8", "s9")] == []


def test_ratio_split_follows_seed_and_not_the_order_of_rows() -> None:
    rules = SplitBy("ratio", test_ratio=0.2, val_ratio=0.1)
    parts = split(many(), rules)
    assert sorted(parts.values()) == ["test"] * 8 + ["train"] * 29 + ["validate"] * 3
    backwards = in_order(many().take(np.arange(120)[::-1]))
    assert split(backwards, rules) == parts
    assert split(many(), rules, seed=1) != parts


def test_a_sample_takes_from_each_part_and_lies_in_a_larger_one() -> None:
    clicks = many(200)
    parts = split_sessions(clicks, SplitBy("ratio", test_ratio=0.2, val_ratio=0.25), 0)

    def sample(share: float, seed: int = 0, rows: ClickTable = clicks) -> dict[str, str]:
        return parts_of(sample_sessions(rows, parts, share, seed), parts)

    some, more = sample(0.1), sample(0.3)
    assert {part: list(some.values()).count(part) for part in set(some.values())} == {
        "train": 12,
        "validate": 4,
        "test": 4,
    }
    assert some.items() <= more.items() <= parts_of(clicks, parts).items()
    assert sample(0.1, rows=clicks.take(np.arange(600)[::-1])) == some  # not by the order of rows
    assert sample(0.1, seed=1) != some
    assert sample_sessions(clicks, parts, 1, 0) is clicks
    assert len(sample(0.001)) == 3  # one of each part at least


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


def column(*names: str | None, sessions: int = 100) -> ClickTable:
    """Sessions of one click in the given splits; the last session has the rest of the clicks."""
    rows = [(f"s{min(n, sessions - 1)}", "i", float(n), name) for n, name in enumerate(names)]
    schema = {"key": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "split": pl.String}
    return ClickTable.of(pl.DataFrame(rows, schema=schema, orient="row"))


def test_column_split_cuts_validation_from_training_unless_it_is_given() -> None:
    rules = SplitBy("column", val_ratio=0.2)
    parts = split(column(*["train"] * 10, *["test"] * 5), rules)
    assert [parts[f"s{n}"] for n in range(10, 15)] == ["test"] * 5
    assert sorted(parts.values()).count("validate") == 2
    for name in ("valid", "validation", "val", "validate"):
        given = split(column("train", "train", name, "test"), rules)
        assert given == {"s0": "train", "s1": "train", "s2": "validate", "s3": "test"}


def test_column_split_refuses_mixed_and_unknown() -> None:
    with pytest.raises(InputError, match="session 's1' is in two splits: test, train"):
        split(column("train", "test", "test", "train", sessions=2), SplitBy("column"))
    with pytest.raises(InputError, match=r"session 's1' has an unknown split \(got 'holdout'\)"):
        split(column("train", "holdout"), SplitBy("column"))
    with pytest.raises(InputError, match="unknown split"):
        split(column(None), SplitBy("column"))


@pytest.mark.parametrize("by", ["temporal", "ratio"])
def test_a_few_sessions_still_fill_every_split(by: str) -> None:
    rules = SplitBy(by)  # type: ignore[arg-type]
    assert sorted(split(many(3), rules).values()) == ["test", "train", "validate"]
    assert split(many(1), rules) == {"s0": "train"}


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
