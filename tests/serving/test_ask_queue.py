"""The queue between a server and a language model: bounded, unique, and safe across processes."""

import sqlite3

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.serving import ask_queue
from llm4sbr.serving.ask_queue import Asked, AskQueue, Published


def key(number):
    return number.to_bytes(16, "big")


def asked(number, nats):
    return Asked(key(number), [f"B{number}"], nats)


def numbers(queue, count=99):
    return [int.from_bytes(one.key, "big") for one in queue.most_uncertain(count)]


def test_the_most_uncertain_ones_stay_within_the_limit(tmp_path):
    queue = AskQueue(tmp_path)
    assert queue.add([asked(1, 1.0), asked(2, 3.0), asked(3, 2.0)], "v", 3) == {"queued": 3}
    assert queue.add([asked(2, 9.0)], "v", 3) == {"waiting": 1}
    assert numbers(queue) == [2, 3, 1]
    assert queue.add([asked(4, 2.5), asked(5, 0.5)], "v", 3) == {"queued": 2, "full": 2}
    assert numbers(queue) == [2, 4, 3]
    assert queue.most_uncertain(1) == [asked(2, 3.0)]


def test_it_survives_a_restart_and_a_second_process(tmp_path):
    """Two objects stand for two processes; the first one is not even closed."""
    first = AskQueue(tmp_path)
    first.add([asked(1, 1.0)], "v", 9)
    second = AskQueue(tmp_path)
    second.add([asked(2, 2.0)], "v", 9)
    assert (numbers(first), len(second)) == ([2, 1], 2)


def test_a_published_session_leaves_the_queue_and_does_not_come_back(tmp_path):
    queue = AskQueue(tmp_path)
    queue.add([asked(1, 1.0), asked(2, 2.0)], "v", 9)
    queue.publish("v", [Published(key(2), b"ids", b"weights")])
    assert numbers(queue) == [1]
    assert queue.add([asked(2, 2.0)], "v", 9) == {"known": 1}
    assert queue.add([asked(2, 2.0)], "other views", 9) == {"queued": 1}
    last, found = queue.published("v")
    assert found == [Published(key(2), b"ids", b"weights")]
    assert queue.published("v", last) == (last, [])
    assert queue.published("other views") == (0, [])


def test_publishing_is_one_transaction(tmp_path):
    """If the session cannot leave the queue, its views are not published."""
    queue = AskQueue(tmp_path)
    queue.add([asked(1, 1.0)], "v", 9)
    with sqlite3.connect(queue.path) as file:
        file.execute("CREATE TRIGGER t BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(InputError, match="queue of sessions failed: no"):
        queue.publish("v", [Published(key(1), b"", b"")])
    assert (numbers(queue), queue.published("v")) == ([1], (0, []))


def test_old_views_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(ask_queue, "MOST_VIEWS", 2)
    queue = AskQueue(tmp_path)
    for number in range(4):
        queue.publish("v", [Published(key(number), b"", b"")])
    assert [one.key for one in queue.published("v")[1]] == [key(2), key(3)]


def test_a_session_leaves_after_three_failures(tmp_path):
    queue = AskQueue(tmp_path)
    queue.add([asked(1, 9.0), asked(2, 1.0), asked(3, 0.5)], "v", 9)
    queue.give_up([key(1)])
    assert numbers(queue) == [2, 3, 1]  # the failed one comes last
    queue.give_up([key(1)])
    queue.give_up([key(1)])
    queue.give_up([key(3)], at_once=True)
    assert numbers(queue) == [2]


def test_damage_hides_a_row_and_names_the_file(tmp_path):
    queue = AskQueue(tmp_path)
    queue.add([asked(1, 1.0)], "v", 9)
    queue.publish("v", [Published(key(2), b"ids", b"weights"), Published(key(3), b"ids", b"weights")])
    queue.close()
    with sqlite3.connect(tmp_path / "asked.sqlite") as file:
        file.execute("UPDATE views SET ids = ? WHERE key = ?", (b"IDS", key(2)))
        file.execute("UPDATE sessions SET items = '[[['")
    queue = AskQueue(tmp_path)
    assert [one.key for one in queue.published("v")[1]] == [key(3)]
    assert queue.most_uncertain(1) == [Asked(key(1), [], 1.0)]
    queue.close()
    (tmp_path / "asked.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match=r"asked\.sqlite"):
        AskQueue(tmp_path)


def test_another_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "asked.sqlite") as file:
        file.execute("CREATE TABLE mine (x)")
    with pytest.raises(InputError, match="not a queue of this version"):
        AskQueue(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        AskQueue(tmp_path / "file")
