"""The impression log is what was shown, and costs no answer when it fails."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime

import polars as pl
import pytest
from bundles import KNOWN, raw
from servers import serving, until

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_file
from llm4sbr.serving.server.impressions import Impression, ImpressionLog, read_impressions
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.metrics import Metrics

SESSIONS = [*raw(KNOWN[:1]), ["B004", "nowhere"], []]


def test_what_was_shown_is_read_back(shop, tmp_path):
    """The last file is the one that SIGTERM writes."""
    folder = tmp_path / "shown"
    with serving(shop, tmp_path, "--impressions", str(folder), "--impression_rows", "4") as server:
        answers = [server.post({"sessions": SESSIONS, "k": 3})[1] for _ in range(3)]
        until(lambda: server.metric('llm4sbr_impressions_total{result="written"}') == 8)
        assert server.stop() == 0
    found = read_impressions(folder)
    assert len(list(folder.glob("*.parquet"))) == 3
    assert len(list(folder.iterdir())) == 3  # no temporary file
    assert found["session"].to_list() == SESSIONS * 3
    shown = [one for answer in answers for one in answer["recommendations"]]
    assert found["items"].to_list() == [one["item_ids"] for one in shown]
    assert found["view"].to_list() == [one["view"] for one in shown]
    for row, one in zip(found["scores"].to_list(), shown, strict=True):
        assert row == pytest.approx(one["scores"])
    assert set(found["bundle"]) == {answers[0]["bundle"]}
    assert found["time"].dtype == pl.Datetime("us", "UTC")


def made(number=0):
    return Impression(datetime.now(UTC), "b", [f"B{number}"], ["B002"], [0.5], "absent")


def test_a_failing_disk_costs_the_log_alone(tmp_path, monkeypatch):
    """The thread goes on after the error."""
    metrics = Metrics()
    log = ImpressionLog(tmp_path / "shown", 2, 60, metrics, JsonLog("error", open(os.devnull, "w")))  # noqa: SIM115

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm4sbr.serving.server.impressions.atomic_file", full)
    log.add([made(), made()])
    value = lambda result: metrics.impressions(result)._value.get()  # noqa: E731
    until(lambda: value("failed") == 2)
    monkeypatch.undo()
    log.add([made(1), made(2)])
    log.close()
    assert (value("written"), value("failed")) == (2, 2)
    assert read_impressions(tmp_path / "shown")["session"].to_list() == [["B1"], ["B2"]]


def test_a_full_disk_of_the_log_changes_no_answer(shop, tmp_path):
    """The folder lies in a file system of a few pages, where the system lets us mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "ballast").write_bytes(bytes(12288))
        words = ("--impressions", str(folder), "--impression_rows", "50")
        with serving(shop, tmp_path, *words) as server:
            for _ in range(40):
                assert server.post({"sessions": [["B001"] * 50] * 5, "k": 20})[0] == 200
            until(lambda: server.metric('llm4sbr_impressions_total{result="failed"}') > 0)
            assert server.post({"sessions": [["B001"]]})[0] == 200
            assert server.stop() == 0
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_memory_has_a_bound_while_the_disk_is_slow(tmp_path, monkeypatch):
    """Seen to fail with the bound left out."""
    metrics, begun, go_on = Metrics(), threading.Event(), threading.Event()

    def slow(target):
        begun.set()
        go_on.wait(20)
        return atomic_file(target)

    monkeypatch.setattr("llm4sbr.serving.server.impressions.atomic_file", slow)
    log = ImpressionLog(tmp_path / "shown", 5, 60, metrics, JsonLog("error"))
    log.add(made(number) for number in range(5))
    assert begun.wait(20)
    log.add(made(number) for number in range(23))
    assert metrics.impressions("dropped")._value.get() == 3
    go_on.set()
    log.close()
    assert metrics.impressions("written")._value.get() == 25


def test_a_folder_without_impressions_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no impressions here"):
        read_impressions(tmp_path)
    (tmp_path / "impressions-x.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="impressions-x"):
        read_impressions(tmp_path)
