from __future__ import annotations

import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS
from llm4sbr.datamodules import Columns, KCore, SessionDataModule, Sessions, SplitBy, digests
from llm4sbr.datamodules.prepared import CacheWarning, save


def entries() -> list[Path]:
    folder = cache_root() / "prepared"
    return sorted(folder.iterdir()) if folder.exists() else []


def same(a: SessionDataModule, b: SessionDataModule) -> bool:
    return a.catalogue == b.catalogue and all(
        np.array_equal(getattr(a.examples(split), field), getattr(b.examples(split), field))
        for split in SPLITS
        for field in ("clicks", "start", "end", "target", "session", "session_ids")
    )


def test_the_second_time_is_read_from_the_cache(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SessionDataModule(str(shop))
    first.prepare_data()
    assert len(entries()) == 1
    monkeypatch.setattr(SessionDataModule, "load_tables", lambda self: pytest.fail("it was built again"))
    assert same(first, SessionDataModule(str(shop)))


@pytest.mark.parametrize("name", ["train.clicks.npy", "items.parquet", "test.ids.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_entry_is_built_anew_with_a_warning(
    shop: Path, tmp_path: Path, name: str, damage: str
) -> None:
    first = SessionDataModule(str(shop), cache_dir=str(tmp_path / "other"))
    SessionDataModule(str(shop)).prepare_data()
    file = entries()[0] / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    again = SessionDataModule(str(shop))
    with pytest.warns(CacheWarning, match="damaged"):
        again.prepare_data()
    assert same(first, again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(first, SessionDataModule(str(shop)))


def test_nothing_but_the_entry_is_left(shop: Path) -> None:
    SessionDataModule(str(shop)).prepare_data()
    assert [entry.name.startswith(".") for entry in entries()] == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"sessions": Sessions("user")},
        {"sessions": Sessions("gap", gap=700)},
        {"kcore": KCore("all", min_item_clicks=2)},
        {"kcore": KCore("train")},
        {"split": SplitBy("ratio")},
        {"split": SplitBy("temporal", val_ratio=0.2)},
        {"split": SplitBy("temporal", unseen_items="drop")},
        {"columns": Columns(text=("brand",))},
        {"missing_titles": "error"},
        {"kcore": KCore("all", unclicked_items="keep")},
        {"examples_per_session": "last"},
        {"eval_examples": "last"},
        {"seed": 1},
        {"items": None},
        {"predict_events": "events.csv"},
    ],
)
def test_every_choice_that_shapes_the_data_is_in_the_key(
    shop: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.chdir(shop)
    SessionDataModule(str(shop)).prepare_data()
    SessionDataModule(**{"data_dir": str(shop), **change}).prepare_data()  # type: ignore[arg-type]
    assert len(entries()) == 2


def test_choices_of_the_loader_are_not_in_the_key_and_content_is(shop: Path, tmp_path: Path) -> None:
    SessionDataModule(str(shop)).prepare_data()
    SessionDataModule(
        str(shop), batch_size=3, max_length=2, num_workers=1, session_graph=False
    ).prepare_data()
    moved = shop.rename(tmp_path / "moved")
    SessionDataModule(str(moved)).prepare_data()
    assert len(entries()) == 1
    for name in ("events.csv", "items.csv"):
        file = moved / name
        stamp = file.stat()
        file.write_text(file.read_text().replace("i001", "i901"))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same times, other content
    SessionDataModule(str(moved)).prepare_data()
    assert len(entries()) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(shop: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(CacheWarning, match="could not be cached"):
        assert SessionDataModule(str(shop), cache_dir=str(blocked)).num_items


def test_a_missing_file_is_named_even_with_a_cache(shop: Path) -> None:
    SessionDataModule(str(shop)).prepare_data()
    (shop / "items.csv").unlink()
    with pytest.raises(InputError, match=r"items\.csv: there is no such file"):
        SessionDataModule(str(shop)).prepare_data()


def test_the_second_of_two_writers_keeps_the_first_ones_entry(shop: Path) -> None:
    data = SessionDataModule(str(shop))
    data.prepare_data()
    meta = entries()[0] / "meta.json"
    stamp = meta.stat().st_mtime_ns
    save(data.build(), entries()[0])
    assert meta.stat().st_mtime_ns == stamp
    assert len(entries()) == 1


def test_a_large_file_is_read_once_and_again_after_a_write(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with size and modification time as the stamp: a program can set the latter."""
    monkeypatch.setattr(digests, "LARGE", 1)
    read: list[Path] = []

    def digest(file: Path) -> str:
        read.append(file)
        return once(file)

    once = digests.digest
    monkeypatch.setattr(digests, "digest", digest)
    first = SessionDataModule(str(shop), cache_dir=str(tmp_path / "other"))
    SessionDataModule(str(shop)).prepare_data()
    read.clear()
    SessionDataModule(str(shop)).prepare_data()
    assert read == []
    file = next(entry for entry in entries() if not entry.name.startswith(".")) / "train.target.npy"
    stamp, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = SessionDataModule(str(shop))
    with pytest.warns(CacheWarning, match=r"checksum of train\.target\.npy"):
        again.prepare_data()
    assert same(first, again)


def test_examples_are_mapped_narrow_and_pickled_as_paths(shop: Path) -> None:
    """Seen to fail with arrays that are pickled with their content."""
    data = SessionDataModule(str(shop))
    examples = data.examples("train")
    arrays = [getattr(examples, field) for field in ("clicks", "start", "end", "target", "session")]
    assert all(isinstance(array, np.memmap) and array.dtype == np.int32 for array in arrays)
    loader = data.train_dataloader()
    sent = pickle.dumps(loader.dataset)
    assert all(array.tobytes() not in sent for array in arrays)
    assert "".join(examples.session_ids[:20]).encode() not in sent
    got = pickle.loads(sent)
    assert all(isinstance(getattr(got.examples, field), np.memmap) for field in ("clicks", "end"))
    assert got.examples.session_ids == examples.session_ids == tuple(examples.session_ids)
    assert got.__getitems__([5, 0]).item_ids.tolist() == loader.dataset.__getitems__([5, 0]).item_ids.tolist()
    part = replace(examples, clicks=examples.clicks[3:])  # not a whole file: sent with its content
    assert pickle.loads(pickle.dumps(part)).clicks.tolist() == examples.clicks[3:].tolist()


def test_writing_to_an_array_does_not_reach_the_cache(shop: Path) -> None:
    examples = SessionDataModule(str(shop)).examples("train")
    before = examples.clicks.tolist()
    examples.clicks[:] = 1
    assert SessionDataModule(str(shop)).examples("train").clicks.tolist() == before
