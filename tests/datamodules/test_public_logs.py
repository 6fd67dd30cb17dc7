"""Click logs as they are published: no header, other separators, sessions split beforehand."""

from __future__ import annotations

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import Columns, Diginetica, KCore, RecBoleAtomic, SessionDataModule, Yoochoose

EVERY = KCore(over="all")


def clicks_of(data):
    """Session id -> item ids, over all splits."""
    found = {}
    for split in ("train", "validate", "test"):
        examples = data.examples(split)
        for session, clicks in zip(
            dict.fromkeys(examples.session.tolist()), examples.sessions(), strict=True
        ):
            found[examples.session_ids[session]] = [data.catalogue.item_ids[item - 1] for item in clicks]
    return found


def yoochoose(folder, name="yoochoose-clicks.dat"):
    rows = [
        f"{session},2014-04-{1 + session:02d}T10:0{click}:09.277Z,2145300{(session + click) % 7:02d},0"
        for session in range(20)
        for click in range(3)
    ]
    (folder / name).write_text("\n".join(rows) + "\n")
    return {
        str(session): [f"2145300{(session + click) % 7:02d}" for click in range(3)] for session in range(20)
    }


def test_yoochoose(tmp_path):
    expected = yoochoose(tmp_path)
    data = Yoochoose(str(tmp_path), kcore=EVERY, cache_dir=tmp_path / "cache")
    assert clicks_of(data) == expected
    assert list(data.examples("test").session_ids)[-1] == "19"  # the latest


def test_a_log_without_a_header_says_so(tmp_path):
    """Seen to fail: the hint advised to name the first click's values as columns."""
    expected = yoochoose(tmp_path, "clicks.csv")
    given = {
        "data_dir": str(tmp_path),
        "events": "clicks.csv",
        "items": None,
        "cache_dir": tmp_path / "cache",
    }
    with pytest.raises(InputError, match=r"looks like a row.*columns\.names"):
        SessionDataModule(**given).examples("train")
    columns = Columns(names=("session_id", "timestamp", "item_id"))
    assert clicks_of(SessionDataModule(**given, columns=columns)) == expected
    yoochoose(tmp_path, "clicks.log")
    with pytest.raises(InputError, match=r"columns\.separator"):
        SessionDataModule(**{**given, "events": "clicks.log"}).examples("train")


def test_diginetica(tmp_path):
    """Days order sessions, milliseconds order clicks. Seen to fail with the time of the day alone."""
    rows = ["sessionId;userId;itemId;timeframe;eventdate"]
    expected = {}
    for session in range(20):
        day = f"2016-05-{28 - session:02d}"
        rows += [f"{session};NA;{80000 + (session + click) % 5};{click * 31000};{day}" for click in (2, 0, 1)]
        expected[str(session)] = [str(80000 + (session + click) % 5) for click in range(3)]
    (tmp_path / "train-item-views.csv").write_text("\n".join(rows) + "\n")
    data = Diginetica(str(tmp_path), kcore=EVERY, cache_dir=tmp_path / "cache")
    assert clicks_of(data) == expected
    assert set(data.examples("test").session_ids) >= {"0", "1"}  # the latest days
    with pytest.raises(InputError, match=r"columns\.separator"):
        SessionDataModule(str(tmp_path), "train-item-views.csv", None, cache_dir=tmp_path / "cache").examples(
            "train"
        )


def write_parts(folder, **parts):
    for part, rows in parts.items():
        head = "session_id:token\titem_id_list:token_seq\titem_id:token"
        lines = [head, *("\t".join(row) for row in rows)]
        (folder / f"shop-session.{part}.inter").write_text("\n".join(lines) + "\n")


def test_recboles_split_sessions(tmp_path):
    write_parts(
        tmp_path,
        train=[("1", "a", "b"), ("1", "a b", "c"), ("2", "b c", "a"), ("2", "b", "c")],
        valid=[("1", "c", "a")],
        test=[("7", "a", "c"), ("7", "a c", "b")],
    )
    data = RecBoleAtomic(str(tmp_path), cache_dir=tmp_path / "cache")
    assert clicks_of(data) == {
        "train-1": ["a", "b", "c"],
        "train-2": ["b", "c", "a"],
        "valid-1": ["c", "a"],
        "test-7": ["a", "c", "b"],
    }
    assert [len(data.examples(split)) for split in ("train", "validate", "test")] == [4, 1, 2]
    write_parts(tmp_path, train=[("1", "a", "b"), ("1", "a c", "b")], valid=[], test=[])
    with pytest.raises(InputError, match=r"row 2: this line contradicts"):
        RecBoleAtomic(str(tmp_path), cache_dir=tmp_path / "cache").examples("train")
    write_parts(tmp_path, train=[("1", "a", "b"), ("2", "", "b")])
    with pytest.raises(InputError, match=r"train\.inter: row 2: an id is missing"):
        RecBoleAtomic(str(tmp_path), cache_dir=tmp_path / "cache").examples("train")
    (tmp_path / "shop-session.train.inter").write_text("session_id:token\titem_id:token\n1\ta\n")
    with pytest.raises(InputError, match=r"a column is missing \(got 'item_id_list'\)"):
        RecBoleAtomic(str(tmp_path), cache_dir=tmp_path / "cache").examples("train")
    (tmp_path / "shop-session.valid.inter").unlink()
    with pytest.raises(InputError, match=r"valid\.inter: this part of the data set is missing"):
        RecBoleAtomic(str(tmp_path), cache_dir=tmp_path / "cache").examples("train")


def test_a_separator_is_one_character():
    with pytest.raises(InputError, match="one ASCII character"):
        Columns(separator="::")
