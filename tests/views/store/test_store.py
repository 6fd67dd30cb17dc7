import fcntl
import os
import random
import signal
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.views.engines import Answer, Choice
from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.store import StoreError, ViewStore
from llm4sbr.views.store.database import checksum
from llm4sbr.views.store.reading import LocalisedRows, RunRecord
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec

ENGINE = EngineIdentity(ModelIdentity("m", "m"), {"strategy": "greedy"}, "")
LONG = AnswerSpec("long_term", "l {items}", ENGINE, 20, 100, 1)
SHORT = AnswerSpec("short_term", "s {items}", ENGINE, 20, 100, 1)
VIEW = ViewSpec("llm", ("long_term", "short_term"), (LONG, SHORT), ModelIdentity("e", "e"), "cat", 3)
KEYS = [bytes([n]) * 16 for n in range(40)]
RUN = RunRecord(1.5, 0, 2.25, 3, 4, 5, 6, "x86_64")


def answer(n: int) -> Answer:
    return Answer(f"answer {n} « שמפו »", n, n // 2, 3, n % 2 == 0, (Choice("x", 0.5),) * (n % 3))


def rows(count: int, r: int = 3) -> LocalisedRows:
    draw = np.random.default_rng(count)
    ids = draw.integers(1, 9, (count, 2, r)).astype(np.int32)
    ids[0, 1] = 0
    return LocalisedRows(ids, draw.random((count, 2, r)).astype(np.float16), (ids > 0).any(-1))


def fill(path) -> LocalisedRows:
    with ViewStore(path) as store:
        store.add_answers([(spec, key, answer(n)) for n, key in enumerate(KEYS) for spec in (LONG, SHORT)])
        written = rows(len(KEYS))
        store.add_localised(VIEW, KEYS, written)
        store.add_titles(VIEW, torch.arange(12.0).reshape(4, 3), torch.tensor([True, True, False, True]))
        store.add_failures([(LONG, bytes([n]) * 15, "HTTP 500 « x »") for n in range(9)])
        store.add_run(VIEW, RUN)
    return written


def everything(path):
    with ViewStore(path) as store:
        found = store.lookup_localised(VIEW, KEYS)
        return (
            [spec.fingerprint for spec in store.view_specs()],
            sorted(store.answers(LONG)),
            sorted(store.answers(SHORT)),
            found.ids.tolist(),
            found.weights.tolist(),
            [part.tolist() for part in store.titles(VIEW)],
            sorted(store.failures(LONG)),
            store.runs(VIEW),
        )


def test_reads_back_by_content_in_the_order_asked(tmp_path):
    written = fill(tmp_path)
    with ViewStore(tmp_path) as store:
        assert dict(store.answers(LONG)) == {key: answer(n) for n, key in enumerate(KEYS)}
        asked = [KEYS[7], b"?" * 16, KEYS[0], KEYS[7]]
        for sweep in (True, False):
            found = store.lookup_localised(VIEW, asked)
            if not sweep:  # one by one
                parts = [store.lookup_localised(VIEW, [key])[:3] for key in asked]
                found = LocalisedRows(*map(np.concatenate, zip(*parts, strict=True)))
            assert found.mask.tolist() == [[True] * 2, [False] * 2, [True, False], [True] * 2]
            assert (found.ids[[0, 3]] == written.ids[7]).all()
            assert (found.weights[2] == written.weights[0]).all()
            assert found.ids[1].sum() == found.weights[1].sum() == 0
        assert [spec.fingerprint for spec in store.view_specs("cat")] == [VIEW.fingerprint]
        assert store.view_specs("other") == []
        assert not list(store.answers(replace(LONG, view="mood")))
        assert not store.lookup_localised(replace(VIEW, catalogue="other"), KEYS).mask.any()


def test_dense_rows_where_r_is_zero(tmp_path):
    dense = np.random.default_rng(0).random((3, 2, 5)).astype(np.float32)
    dense[1, 0] = 0
    nothing = np.zeros((3, 2, 0))
    spec = replace(VIEW, r=0)
    with ViewStore(tmp_path) as store:
        parts = LocalisedRows(nothing.astype(np.int32), nothing.astype(np.float16), dense.any(-1), dense)
        store.add_localised(spec, KEYS[:3], parts)
        found = store.lookup_localised(spec, [KEYS[1], KEYS[3], KEYS[0]], dim=5)
    assert found.vectors is not None
    assert (found.vectors == np.stack([dense[1], np.zeros((2, 5)), dense[0]])).all()
    assert found.mask.tolist() == [[False, True], [False, False], [True, True]]


def test_intents_for_people(tmp_path):
    catalogue = Catalogue(("a", "b"), ("A", "B"))
    with ViewStore(tmp_path) as store:
        store.add_answers([(LONG, catalogue.session_key((1, 2)), Answer("soap", 1, 1, 1, True))])
        parts = LocalisedRows(
            np.array([[[2, 1, 0], [0, 0, 0]]], np.int32),
            np.array([[[0.5, 0.25, 0], [0, 0, 0]]], np.float16),
            np.array([[True, False]]),
        )
        store.add_localised(VIEW, [catalogue.session_key((1, 2))], parts)
        assert store.intents(VIEW, catalogue, (1, 2)) == [("long_term", "soap", (2, 1), (0.5, 0.25))]
        assert store.intents(VIEW, catalogue, (2, 1)) == []


def test_a_flipped_byte_is_never_used_silently(tmp_path):
    """Seen to fail with the checksums or integrity_check taken out."""
    path = tmp_path / "store"
    fill(path)
    expected = everything(path)
    draw, caught = random.Random(0), 0
    for file in (path / "views.sqlite", *path.glob("titles-*")):
        content = file.read_bytes()
        for _ in range(200):
            place = draw.randrange(len(content))
            file.write_bytes(
                content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
            )
            try:
                assert everything(path) == expected, f"{file.name} byte {place}"  # it hit unused space
            except StoreError:
                caught += 1
        file.write_bytes(content)
    assert caught > 200
    assert everything(path) == expected


def test_rows_that_trade_places_are_found_out(tmp_path):
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "views.sqlite") as raw:
        raw.execute("UPDATE answers SET text = 'forged' WHERE session_key = ?", (KEYS[3],))
    with ViewStore(tmp_path) as store, pytest.raises(StoreError, match="checksum"):
        list(store.answers(LONG))


@pytest.mark.parametrize("harm", ["truncate", "remove", "swap"])
def test_a_harmed_title_table_is_named(tmp_path, harm):
    fill(tmp_path)
    (table,) = tmp_path.glob("titles-*")
    if harm == "truncate":
        table.write_bytes(table.read_bytes()[:-5])
    elif harm == "remove":
        table.unlink()
    else:
        with ViewStore(tmp_path) as store:
            store.add_titles(replace(VIEW, catalogue="other"), torch.ones(4, 3), torch.ones(4) > 0)
        (other,) = set(tmp_path.glob("titles-*")) - {table}
        other.replace(table)
    with ViewStore(tmp_path) as store:
        with pytest.raises(StoreError, match="title embeddings") as caught:
            store.titles(VIEW)
        assert str(table) in str(caught.value)
        with pytest.raises(StoreError, match="no title embeddings for this encoder"):
            store.titles(replace(VIEW, catalogue="a third"))


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no view store"):
        ViewStore(tmp_path).view_specs()
    database = tmp_path / "views.sqlite"
    for content in (b"", b"not a database, whatever its name says" * 100):
        database.write_bytes(content)
        with pytest.raises(StoreError, match="view store"):
            ViewStore(tmp_path).view_specs()
    database.unlink()
    with sqlite3.connect(database) as foreign:
        foreign.execute("CREATE TABLE mine (x)")
    for act in (ViewStore.view_specs, ViewStore.lock):
        with pytest.raises(StoreError, match="not a view store"):
            act(ViewStore(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file: the view store failed: .*Check that the folder exists"):
        ViewStore(tmp_path / "file").lock()
    fill(tmp_path / "new")
    with sqlite3.connect(tmp_path / "new" / "views.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        ViewStore(tmp_path / "new").view_specs()


@pytest.mark.parametrize("column", ["ids", "weights"])
def test_a_view_of_another_size_is_refused_though_its_checksum_is_right(tmp_path, column):
    """As another program would write it. Seen to fail by an error of NumPy without the check."""
    fill(tmp_path)
    raw = {"ids": bytes(2 * 3 * 4), "weights": bytes(2 * 3 * 2)}
    raw[column] += bytes(2)
    found = checksum(VIEW.fingerprint, KEYS[3], *raw.values())
    with sqlite3.connect(tmp_path / "views.sqlite") as file:
        file.execute("UPDATE localised SET ids = ?, weights = ?, checksum = ? WHERE session_key = ?",
                     (*raw.values(), found, KEYS[3]))  # fmt: skip
    with (
        ViewStore(tmp_path) as store,
        pytest.raises(StoreError, match=f"{KEYS[3].hex()}: a view has the wrong"),
    ):
        store.lookup_localised(VIEW, KEYS)


def test_specs_come_back_oldest_first(tmp_path):
    views = [VIEW, *(replace(VIEW, catalogue=name) for name in "zay")]
    with ViewStore(tmp_path) as store:
        for spec in (SHORT, LONG, *views, VIEW):  # the last is there already
            store.add_spec(spec)
        assert store.answer_specs() == [SHORT, LONG]
        assert store.view_specs() == views


def test_a_store_may_be_closed_twice_and_reopens(tmp_path):
    written, store = fill(tmp_path), ViewStore(tmp_path)
    store.lock()
    for _ in range(2):
        store.close()
    ViewStore(tmp_path).lock()  # released
    assert (store.lookup_localised(VIEW, KEYS).ids == written.ids).all()
    store.close()


def test_one_writer_many_readers(tmp_path):
    fill(tmp_path)
    with ViewStore(tmp_path) as writer, ViewStore(tmp_path) as reader:
        writer.add_answers([(LONG, b"n" * 16, answer(1))])
        assert len(list(reader.answers(LONG))) == len(KEYS) + 1
        with pytest.raises(StoreError, match=r"another process is writing.*pid"):
            ViewStore(tmp_path).add_answers([(LONG, b"m" * 16, answer(1))])
        with forked(lambda: ViewStore(tmp_path).lock()) as (_, said):
            assert "another process is writing" in said.readline()
    with ViewStore(tmp_path) as store:
        store.lock()  # free again


@contextmanager
def forked(act):
    """Another process that acts, says "done" or its error, and stays: importing torch anew takes seconds."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            act()
            text = "done"
        except BaseException as error:
            text = str(error)
        os.write(write, f"{text}\n".encode())
        time.sleep(60)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        yield pid, said
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_lock_dies_with_its_process(tmp_path):
    kept = ViewStore(tmp_path)
    with forked(kept.lock) as (_, said):
        assert said.readline() == "done\n"
        with pytest.raises(StoreError, match="another process is writing"):
            ViewStore(tmp_path).lock()
    with ViewStore(tmp_path) as store:
        store.lock()


def test_a_full_disk_stops_cleanly_and_keeps_what_was_written(tmp_path):
    with ViewStore(tmp_path) as store:
        store.add_answers([(LONG, KEYS[0], answer(0))])
        assert store._connection is not None
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own stand-in for a full disk
        with pytest.raises(StoreError, match=r"full.*Free some space"):
            store.add_answers([(LONG, key, Answer("x" * 5000, 1, 1, 1, True)) for key in KEYS[1:]])
        assert [key for key, _ in store.answers(LONG)] == [KEYS[0]]
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.add_answers([(LONG, KEYS[1], answer(1))])
    with ViewStore(tmp_path) as store:
        assert len(list(store.answers(LONG))) == 2


def test_stray_files_and_broken_unicode(tmp_path):
    fill(tmp_path)
    (tmp_path / ".tmp-9-titles").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    with ViewStore(tmp_path) as store:
        store.add_answers([(LONG, KEYS[0], Answer("half \ud83d emoji \x00", 1, 1, 1, True))])
        assert dict(store.answers(LONG, KEYS[0]))[KEYS[0]].text == "half ? emoji \x00"
    assert not list(tmp_path.glob(".tmp-*"))
    assert (tmp_path / "notes.txt").exists()


def test_lock_file_is_an_ordinary_flock(tmp_path):
    with ViewStore(tmp_path) as store:
        store.lock()
        with (tmp_path / "writer.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_looks_up_many_sessions_at_once(tmp_path):
    keys = [random.Random(n).randbytes(16) for n in range(20_000)]
    with ViewStore(tmp_path) as store:
        store.add_localised(VIEW, keys, rows(len(keys)))
        found = store.lookup_localised(VIEW, keys)
    assert (found.ids == rows(len(keys)).ids).all()
