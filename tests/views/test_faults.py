"""Stage 1 stopped at any point, on disks that fill up and engines that give up: nothing reported is lost."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from llm4sbr.views import Selection, infer_views
from llm4sbr.views.store import StoreError, ViewStore


def infer(stubs, path, engine=None, source=None, **options):
    with ViewStore(path) as store:
        return infer_views(
            source or stubs.FakeSource(),
            store,
            engine=engine or stubs.StubEngine(),
            encoder=stubs.StubEncoder(),
            progress=False,
            **options,
        )


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def stored(path):
    """Every answer of a store as the log has it, and the localised sessions."""
    with ViewStore(path) as store:
        (spec,) = store.view_specs()
        answers = {
            f"{one.view} {key.hex()} {answer.text}": (one.view, key)
            for one in spec.answers
            for key, answer in store.answers(one)
        }
        return set(answers), store.localised_keys(spec)


def same(path, other):
    """Two stores hold the same answers and views."""
    with ViewStore(path) as one, ViewStore(other) as two:
        (spec,) = one.view_specs()
        for part in spec.answers:
            assert sorted(one.answers(part)) == sorted(two.answers(part))
        keys = sorted(one.localised_keys(spec))
        assert keys == sorted(two.localised_keys(spec))
        for mine, theirs in zip(
            one.lookup_localised(spec, keys)[:3], two.lookup_localised(spec, keys)[:3], strict=True
        ):
            assert mine.tolist() == theirs.tolist()


@pytest.fixture(scope="module")
def straight(stubs, tmp_path_factory):
    """What a run without a fault makes, and how many prompts it asks."""
    path, engine = tmp_path_factory.mktemp("straight"), stubs.StubEngine()
    infer(stubs, path, engine)
    return path, len(engine.asked)


def after_the_first_batch(path, before=0):
    while len(lines(path / "asked.log")) <= before:
        time.sleep(0.002)


def test_kill_minus_nine_loses_nothing_reported_written(stubs, forked, straight, tmp_path):
    """Seen to fail with the commit moved to the end of the run, and with the answers in memory to the end."""
    draw, kills = random.Random(), 0
    for _ in range(12):
        forked.start(tmp_path, 0.02)
        time.sleep(draw.uniform(0, 0.4))
        forked.kill(signal.SIGKILL)
        kills += forked.wait() == -signal.SIGKILL
        if reported := set(lines(tmp_path / "reported.log")):
            assert reported <= stored(tmp_path)[0]
    assert kills > 2
    forked.start(tmp_path, 0)
    assert forked.wait() == 0
    asked = lines(tmp_path / "asked.log")
    assert len(set(asked)) == straight[1]
    assert len(asked) - len(set(asked)) <= kills * 8  # at most the batch in flight at each kill
    same(tmp_path, straight[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_batch_with_its_views(stubs, forked, straight, tmp_path, number):
    """Seen to fail with the views localised at the end of the run alone."""
    before = 0
    for _ in range(2):
        forked.start(tmp_path, 0.05)
        after_the_first_batch(tmp_path, before)
        forked.kill(number)
        assert forked.wait() == 3
        before = len(lines(tmp_path / "asked.log"))
        assert before < straight[1]
        assert "run the same command to continue" in (tmp_path / "out-0").read_text()
        reported = set(lines(tmp_path / "reported.log"))
        answers, localised = stored(tmp_path)
        assert reported == answers
        keys = [line.split(" ")[1] for line in answers]
        assert localised == {bytes.fromhex(key) for key in keys if keys.count(key) == 2}
        assert localised
    forked.start(tmp_path, 0)
    assert forked.wait() == 0
    asked = lines(tmp_path / "asked.log")
    assert len(asked) == len(set(asked)) == straight[1]
    same(tmp_path, straight[0])


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_torn_tail_costs_the_tail_alone(stubs, forked, straight, tmp_path, harm):
    """A disk that lied about its last writes: the log ends early, or holds a wrong byte.

    What is read is a beginning of what was reported, in order and intact, or the store says that it is none;
    a later run makes the rest. Nothing better can be had of a file that lost what was synced.
    """
    whole, draw = tmp_path / "whole", random.Random()
    forked.start(whole, 0.01)
    while len(lines(whole / "reported.log")) < 150:
        time.sleep(0.001)
    forked.kill(signal.SIGKILL)
    forked.wait()
    reported, log = lines(whole / "reported.log"), whole / "views.sqlite-wal"
    content, ends = log.read_bytes(), set()
    for at in range(15):
        torn = tmp_path / f"torn-{at}"
        shutil.copytree(whole, torn)
        place = draw.randrange(len(content))
        if harm == "truncate":
            (torn / log.name).write_bytes(content[:place])
        else:
            (torn / log.name).write_bytes(
                content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]
            )
        try:
            found = stored(torn)[0]
        except (StoreError, ValueError):  # torn before the schema or the first spec
            found = set()
        ends.add(len(found))
        known = [line in found for line in reported]
        assert known == sorted(known, reverse=True)  # nothing is missing before something that is there
        assert len(found) <= len(reported) + 8  # one batch was written and not yet reported
    assert len(ends) > 3
    assert infer(stubs, torn).answers.total == len(stored(straight[0])[0])
    same(torn, straight[0])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_says_so_and_the_run_goes_on_later(stubs, straight, small_disk):
    """Seen to fail with the hint of damage: SQLite calls a full disk an I/O error in some places."""
    ballast, store, errors, reported = small_disk / "ballast", small_disk / "store", [], set()
    for free in (0, 4, 8, 24, 48, 64, 90, 120, 160, 220):
        ballast.unlink(missing_ok=True)
        room = os.statvfs(small_disk)
        left = room.f_bavail * room.f_frsize - free * 1024
        ballast.write_bytes(bytes(max(0, left)))
        try:
            infer(stubs, store)
        except StoreError as error:
            errors.append(str(error))
        if (store / "views.sqlite").exists():
            try:
                found = stored(store)[0]
            except (StoreError, ValueError):
                found = set()
            assert reported <= found
            reported = found
    assert len(errors) > 3
    assert all("Free some space" in error for error in errors), errors
    assert reported
    ballast.unlink()
    infer(stubs, store)
    same(store, straight[0])


def test_failures_are_stored_listed_and_asked_again(stubs, straight, tmp_path):
    """Seen to fail with failed sessions counted as answered, and with their entries kept."""
    engine = stubs.FailingEngine(lambda prompt: "rose" in prompt.splitlines()[1])
    first = infer(stubs, tmp_path, engine)
    failed = sum(first.failures.values())
    assert 0 < failed < len(stored(straight[0])[0])
    assert set(first.failures) == {"HTTP 500 (tries: 7)"}
    assert f"{failed} answers failed, listed in the store; run again to retry" in str(first)
    with ViewStore(tmp_path) as store:
        (spec,) = store.view_specs()
        entries = [entry for one in spec.answers for entry in store.failures(one)]
        assert len(entries) == failed
        assert not {key for key, _ in entries} & store.localised_keys(spec)
    part = infer(stubs, tmp_path, stubs.FailingEngine(lambda prompt: len(prompt) % 2 == 0))
    assert part.usage.prompts > 0
    assert sum(part.failures.values()) < failed
    last = stubs.StubEngine()
    assert not infer(stubs, tmp_path, last).failures
    assert 0 < len(last.asked) <= sum(part.failures.values())
    with ViewStore(tmp_path) as store:
        assert not [entry for one in spec.answers for entry in store.failures(one)]
    same(tmp_path, straight[0])


def test_equal_prompts_are_asked_once_ever(stubs, tmp_path):
    """Other ids with equal titles make equal prompts. Seen to fail with the prompt's hash left out."""
    source = stubs.FakeSource(titles=["rose soap", "rose soap", "silk powder", "silk powder", "oil"] * 3)
    asked, rows = [], 0
    for limit in (7, 20, 60, None):
        engine = stubs.StubEngine(batch_size=6)
        summary = infer(stubs, tmp_path, engine, source, sessions=Selection(limit=limit))
        asked, rows = [*asked, *engine.asked], summary.answers.total
    assert len(asked) == len(set(asked)) < rows
    other = stubs.StubEngine(name="another model")
    infer(stubs, tmp_path, other, source)
    assert set(other.asked) == set(asked)  # its answers are no other model's
