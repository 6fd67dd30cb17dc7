from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import AuthorPickles
from llm4sbr.datamodules.author_pickles import group, read_pickle

Write = Callable[[str, "str | bytes"], Path]
Pairs = list[tuple[list[int], int]]


def expanded(session: list[int]) -> Pairs:
    """As the authors' script writes them: the longest prefix first."""
    return [(session[:-cut], session[-cut]) for cut in range(1, len(session))]


SESSIONS = [[10 * n + 1, 2, 10 * n + 3, 2] for n in range(1, 31)]
TRAIN = [pair for session in SESSIONS for pair in expanded(session)]
TEST = [*expanded([11, 13, 2]), ([500, 2], 11)]


def pickled(pairs: Pairs, protocol: int = 4) -> bytes:
    return pickle.dumps(([prefix for prefix, _ in pairs], [target for _, target in pairs]), protocol)


@pytest.fixture
def folder(write: Write) -> Path:
    write("p/test.txt", pickled(TEST))
    return write("p/train.txt", pickled(TRAIN)).parent


def told(data: AuthorPickles, split: str) -> Pairs:
    examples, ids = data.examples(split), ("", *data.catalogue.item_ids)  # type: ignore[arg-type]
    return [
        ([int(ids[item]) for item in prefix], int(ids[target]))
        for prefix, target in zip(examples.prefixes(), examples.target.tolist(), strict=True)
    ]


def test_examples_come_out_as_they_went_in(folder: Path) -> None:
    data = AuthorPickles(str(folder))
    assert told(data, "test") == TEST
    assert sorted(told(data, "train") + told(data, "validate")) == sorted(TRAIN)
    assert data.examples("predict").session_ids == ("test#1", "test#2")
    assert [len(prefix) for prefix in data.examples("predict").prefixes()] == [3, 3]
    assert list(map(int, data.catalogue.item_ids)) == sorted(map(int, data.catalogue.item_ids))


def test_validation_keeps_sessions_together(folder: Path) -> None:
    data = AuthorPickles(str(folder), val_ratio=0.3)
    first = [{prefix[0] for prefix, _ in told(data, split)} for split in ("train", "validate")]
    assert [len(part) for part in first] == [21, 9]
    assert not first[0] & first[1]
    assert set(data.examples("train").session_ids).isdisjoint(data.examples("validate").session_ids)
    assert len(data.examples("validate").clicks) == 9 * 4
    assert len(AuthorPickles(str(folder), val_ratio=0).examples("validate")) == 0


def test_grouping_upwards_downwards_and_apart() -> None:
    assert group([[1], [1, 2], [1, 2, 3]], [2, 3, 4]) == ([[1, 2, 3, 4]], [0, 0, 0])
    assert group([[1, 2], [1], [1, 2]], [3, 2, 9]) == ([[1, 2, 3], [1, 2, 9]], [0, 0, 1])
    assert group([[1], [1]], [2, 2]) == ([[1, 2], [1, 2]], [0, 1])
    assert group([], []) == ([], [])


def test_titles_are_read_from_a_table(folder: Path) -> None:
    rows = sorted({item for session in SESSIONS for item in session} | {500})
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{n},Film {n}\n" for n in rows))
    catalogue = AuthorPickles(str(folder), items="items.csv").catalogue
    assert catalogue.titles == tuple(f"Film {item}" for item in catalogue.item_ids)


class Bomb:
    """Runs code when it is unpickled carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_before_it_runs(
    write: Write, tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps(([[1, Bomb(mark)]], [2]), protocol)
    pickle.loads(data)  # the bomb is real
    assert mark.exists()
    mark.unlink()
    with pytest.raises(InputError, match=r"train\.txt: the pickle refers to code and is rejected"):
        read_pickle(write("train.txt", data))
    assert not mark.exists()


@pytest.mark.parametrize("code", [b"cos\nsystem\n(S'exit 1'\ntR.", b"(S'x'\nibuiltins\nprint\n.", b"Pid\n."])
def test_other_opcodes_that_call_out_are_refused(write: Write, code: bytes) -> None:
    with pytest.raises(InputError, match=r"rejected|damaged"):
        read_pickle(write("train.txt", code))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "not a pair of lists"),
        ([[[1]]], "not a pair of lists"),
        (([[1]], 2), "not a pair of lists"),
        (([[1]], [2, 3]), "1 prefixes but 2 targets"),
        (([[1], []], [2, 3]), r"row 2: a prefix .* \(got \[\]\)"),
        (([[1], 5], [2, 3]), "row 2: a prefix"),
        (([[1], ["x"]], [2, 3]), r"row 2: an item must be a positive integer \(got 'x'\)"),
        (([[1], [True]], [2, 3]), r"row 2: .* \(got True\)"),
        (([[1], [0]], [2, 3]), r"row 2: .* \(got 0\)"),
        (([[1], [2]], [2, 1.5]), r"row 2: .* \(got 1.5\)"),
        (([[1], [2]], [2, 1 << 70]), "row 2: an item"),
    ],
)
def test_anything_but_lists_of_integers_is_refused(write: Write, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pickle(write("train.txt", pickle.dumps(content)))


def test_damaged_empty_and_example_less_pickles(folder: Path, write: Write) -> None:
    with pytest.raises(InputError, match="damaged"):
        read_pickle(write("cut.txt", pickled(TRAIN)[:-20]))
    with pytest.raises(InputError, match="the file is empty"):
        read_pickle(write("none.txt", b""))
    write("p/train.txt", pickled([]))
    with pytest.raises(InputError, match="no training example"):
        AuthorPickles(str(folder)).prepare_data()
