"""Atomic writes: whole or not at all, and nothing but regular files replaced."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import Started

import llm4sbr
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_file, atomic_folder, recover_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_text_file_is_written_in_a_folder_that_is_made(tmp_path):
    path = write_text(tmp_path / "deep" / "er" / "a.txt", "Rosé – 桜\r\n")
    assert path.read_bytes() == "Rosé – 桜\r\n".encode()
    assert names(path.parent) == ["a.txt"]


def test_the_text_is_utf_8_in_any_locale(tmp_path):
    """Seen to fail with `Path.write_text`: C gives ASCII."""
    code = (
        "import sys, types; sys.modules['llm4sbr'] = types.ModuleType('llm4sbr')\n"  # torch is not needed
        "sys.modules['llm4sbr'].__path__ = [sys.argv[1]]\n"
        "from llm4sbr.contracts.files import write_text; write_text(sys.argv[2], '\\u685c')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-P", "-c", code, str(Path(llm4sbr.__file__).parent), str(tmp_path / "a.txt")]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "a.txt").read_bytes() == "桜".encode()


def test_a_block_that_raises_leaves_the_file_as_it_was(tmp_path):
    path = write_text(tmp_path / "a.txt", "before")

    def broken() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.replace"])
def test_a_kill_before_the_rename_leaves_the_file_as_it_was(tmp_path, moment):
    """Seen to fail with a write in place."""
    path = write_text(tmp_path / "a.txt", "before")
    code = (
        "import os, pathlib, signal, sys; from llm4sbr.contracts.files import write_text\n"
        f"{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_text(sys.argv[1], 'after')"
    )
    assert Started(tmp_path.parent, code, str(path)).wait()[0] == -signal.SIGKILL
    assert path.read_text() == "before"
    assert [name.startswith(".tmp-") for name in names(tmp_path)] == [True, False]
    write_text(path, "again")  # what a kill left is in nobody's way
    assert path.read_text() == "again"


def test_what_is_renamed_is_on_disk(tmp_path, monkeypatch):
    """Seen to fail without the flush (a larger file needs none), and with the sync after the rename."""
    done = []
    sync, replace = os.fsync, Path.replace
    size = lambda handle: os.fstat(handle).st_size  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(("sync", size(handle))) or sync(handle))
    monkeypatch.setattr(Path, "replace", lambda *paths: done.append(("rename", 0)) or replace(*paths))
    write_text(tmp_path / "a.txt", "x" * 1_000)
    assert done[:2] == [("sync", 1_000), ("rename", 0)]
    assert done[2][0] == "sync"  # the folder


WRITERS = {
    "text": "write_text(path, 'x' * 100_000)",
    "table": (
        "with atomic_file(path) as file: "
        "pl.DataFrame({'a': np.random.default_rng(0).random(50_000)}).write_parquet(file)"
    ),
    "folder of tensors": (
        "with atomic_folder(path, replace=True) as folder: "
        "save_file({'a': np.random.default_rng(0).random(50_000)}, folder / 'a')"
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, writer):
    """A limit on the size of files makes a write fail as a full disk does.

    Seen to fail with the libraries' own errors, which name no file.
    """
    path = tmp_path / "a"
    inside = path / "a" if "folder" in writer else path
    write_text(inside, "before")
    code = (
        "import resource, signal, sys; import numpy as np; import polars as pl\n"
        "from pathlib import Path; from safetensors.numpy import save_file\n"
        "from llm4sbr.contracts.files import atomic_file, atomic_folder, recover_folder, write_text\n"
        "path = Path(sys.argv[1]); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n" + WRITERS[writer]
    )
    _, _, complained = Started(tmp_path.parent, code, str(path)).wait()
    assert f"InputError: {path}: this cannot be written: File too large" in complained
    assert inside.read_text() == "before"
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"a\.txt: this cannot be written: Permission denied"):
        write_text(tmp_path / "a.txt", "x")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    write_text(tmp_path / "a", "x")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "a" / "b.txt", "x")


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    def copy() -> None:
        with atomic_file(tmp_path / "a.txt") as file:
            file.write((tmp_path / "elsewhere" / "b.txt").read_bytes())

    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        copy()
    assert names(tmp_path) == []


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    os.chdir(path.parent)  # a socket's path has 108 bytes
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        make_pipe,
        make_socket,
        lambda path: path.symlink_to("/dev/null"),
        lambda path: path.symlink_to(path.parent),
        lambda path: path.symlink_to("gone"),
        lambda path: path.symlink_to(path.name),  # itself
    ],
    ids=["folder", "pipe", "socket", "device", "link to a folder", "broken link", "loop"],
)
def test_only_a_regular_file_is_replaced(tmp_path, monkeypatch, make):
    """Seen to fail with a plain rename, which puts a file in the place of all but the folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a"
    make(path)
    before = path.lstat()
    with pytest.raises(InputError, match=str(path)):
        write_text(path, "x")
    assert path.lstat() == before
    assert names(tmp_path) == ["a"]


def test_a_device_is_not_replaced():
    with pytest.raises(InputError, match="/dev/null: this is a device"):
        write_text("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_to_a_file_stays_a_link(tmp_path):
    real = write_text(tmp_path / "real" / "a.txt", "before")
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    write_text(link, "after")
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert names(tmp_path) == ["link.txt", "real"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(tmp_path, mask, mode):
    """Seen to fail with `tempfile`, whose files are their owner's alone."""
    before = os.umask(mask)
    try:
        path = write_text(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "b") as folder:
            write_text(folder / "c.txt", "x")
            (folder / "c.txt").chmod(0o600)  # as the files of some libraries
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == mode | (mode & 0o444) >> 2
    assert stat.S_IMODE((tmp_path / "b" / "c.txt").stat().st_mode) == mode


def test_a_long_name_has_room_for_its_sibling(tmp_path):
    assert write_text(tmp_path / ("桜" * 80 + ".txt"), "x").read_text() == "x"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "a"
    with atomic_folder(target) as folder:
        (folder / "one").write_text("1")
        assert not target.exists()
    assert (target / "one").read_text() == "1"

    def broken() -> None:
        with atomic_folder(target, replace=True) as folder:
            (folder / "one").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert (target / "one").read_text() == "1"
    assert names(target.parent) == ["a"]


@pytest.mark.parametrize(("replace", "kept"), [(False, "first"), (True, "second")])
def test_of_two_folders_one_stays(tmp_path, replace, kept):
    for content in ("first", "second"):
        with atomic_folder(tmp_path / "a", replace=replace) as folder:
            (folder / "one").write_text(content)
    assert (tmp_path / "a" / "one").read_text() == kept
    assert names(tmp_path) == ["a"]


@pytest.fixture
def without_exchange(monkeypatch):
    """As on a system without Linux's exchange of two names."""
    monkeypatch.setattr("llm4sbr.contracts.files._exchanged_at_once", lambda *_: False)


def exchange(target: Path) -> None:
    with atomic_folder(target, replace=True) as folder:
        (folder / "one").write_text("after")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_a_failing_exchange_deletes_nothing(tmp_path, monkeypatch, without_exchange, error):
    """The earlier folder is back and the new one is beside it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("before")
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if not path.name.endswith("-a-before") and Path(target).name == "a":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises((KeyboardInterrupt, InputError)) as told:
        exchange(tmp_path / "a")
    assert (tmp_path / "a" / "one").read_text() == "before"
    kept, _ = names(tmp_path)
    assert (tmp_path / kept / "one").read_text() == "after"
    assert told.type is KeyboardInterrupt or kept in str(told.value)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_kill_at_any_rename_leaves_a_whole_folder_to_be_found(tmp_path, at_once):
    """Between two renames the earlier folder has another name."""
    code = (
        "import os, pathlib, signal, sys; from llm4sbr.contracts import files; rename = pathlib.Path.rename\n"
        "if sys.argv[3] == 'False': files._exchanged_at_once = lambda *_: False\n"
        "left = [int(sys.argv[2])]\n"
        "def dying(*paths):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(*paths)\n"
        "pathlib.Path.rename = dying\n"
        "with files.atomic_folder(sys.argv[1], replace=True) as folder: (folder / 'one').write_text('after')"
    )
    target, ends = tmp_path / "a", []
    for moment in range(1 if at_once else 4):
        exchange(target)
        (target / "one").write_text("before")
        ends.append(Started(tmp_path.parent, code, str(target), str(moment), str(at_once)).wait()[0])
        recover_folder(target)
        assert (target / "one").read_text() in ("before", "after")
    assert ends == ([0] if at_once else [-signal.SIGKILL] * 3 + [0])


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to make another's link"
)
def test_a_link_of_another_user_is_not_followed(tmp_path):
    (tmp_path / "theirs").write_text("before")
    (tmp_path / "link").symlink_to("theirs")
    os.lchown(tmp_path / "link", 12345, 12345)
    with pytest.raises(InputError, match="link of another user"):
        write_text(tmp_path / "link", "after")
    assert (tmp_path / "theirs").read_text() == "before"


def test_neither_a_file_nor_a_link_to_nowhere_is_replaced_by_a_folder(tmp_path):
    path, link = write_text(tmp_path / "a", "x"), tmp_path / "link"
    link.symlink_to("gone")
    for target, told in ((path, "not a folder"), (link, "a link that leads nowhere")):
        with (
            pytest.raises(InputError, match=f"{target}: this is {told}"),
            atomic_folder(target, replace=True),
        ):
            pass
    assert path.read_text() == "x"
    assert names(tmp_path) == ["a", "link"]


def test_what_took_the_place_of_a_folder_is_not_moved(tmp_path):
    """Seen to fail without the look at the target."""
    aside, target = tmp_path / ".tmp-0-a-before", tmp_path / "a"
    aside.mkdir()
    target.mkdir()
    (target / "one").touch()
    recover_folder(target)
    assert (names(tmp_path), names(target)) == ([aside.name, "a"], ["one"])


def test_a_lone_surrogate_in_json_comes_back(tmp_path):
    """Seen to fail with strict UTF-8, by an error."""
    path = write_text(tmp_path / "a.json", json.dumps("Ros\udc80", ensure_ascii=False))
    assert json.loads(path.read_text("utf-8")) == "Ros\udc80"
