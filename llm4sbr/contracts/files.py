"""Atomic writes: a file or folder appears complete under its name, or not at all."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llm4sbr.contracts.errors import InputError

_SCRATCH = ".tmp-"
_ASIDE = "-before"  # ending of the name of a folder that is being replaced
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of Linux's renameat2
_RUST_OS_ERROR = re.compile(r"([^:]+) \(os error \d+\)")  # in error types of polars and safetensors
_NOWHERE = "this is a link that leads nowhere, so it is not replaced"


@contextmanager
def atomic_file(target: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `target` for writing and rename it to `target` when the block ends.

    The sibling is flushed to disk before the rename, so after a kill, a full disk or a power cut `target`
    holds either its earlier content or the new content. The parent folder is created. The umask sets the
    file's permissions. A link to a regular file stays a link, and the file that it points to is replaced. If
    the block raises, the sibling is removed and `target` does not change.

    Args:
        target: File to write.

    Yields:
        The binary stream to write to.

    Raises:
        InputError: If `target` is a folder, a device, a pipe, a socket or a broken link, or the file system
            rejects the write.
    """
    target = Path(target)
    with _named(target):
        real = _regular(target)
        real.parent.mkdir(parents=True, exist_ok=True)
        scratch = _sibling(real)
        # tempfile.mkstemp is not used: it gives every file the mode 0600.
        handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(real)
            _sync_folder(real.parent)
        finally:
            scratch.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> Path:
    r"""Write a text file in UTF-8, atomically.

    Args:
        target: File to write; see `atomic_file`.
        text: Content. Line ends are not converted. A lone surrogate, which UTF-8 can't encode, is written as
            ``\udc80``, which JSON reads back.

    Returns:
        `target` as a path.
    """
    with atomic_file(target) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return Path(target)


@contextmanager
def atomic_folder(target: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Create a temporary sibling folder of `target` and rename it to `target` when the block ends.

    Every file in the folder is flushed to disk before the rename. If the block raises, the sibling is removed
    and `target` does not change.

    Args:
        target: Folder to create.
        replace: Whether the new folder replaces an existing one; otherwise the existing one is kept. A
            rename can't replace a folder that holds files, so the two are exchanged: in one step on Linux.
            Elsewhere a kill between two renames leaves the existing folder under a temporary name, from which
            the next call, or `recover_folder`, brings it back. If a rename fails, nothing is deleted.

    Yields:
        The temporary folder to fill.

    Raises:
        InputError: If `target` exists and is not a folder, or the file system rejects the write.
    """
    target = Path(target)
    with _named(target):
        if target.is_symlink() and not target.exists():
            raise InputError(_NOWHERE, path=target)
        real = target.resolve()
        if real.exists() and not real.is_dir():
            raise InputError("this is not a folder, so it is not replaced", path=target)
        real.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(real)
        scratch = _sibling(real)
        scratch.mkdir()
        try:
            yield scratch
            _sync_tree(scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if replace and real.exists():
            _exchange(scratch, real)
        else:
            try:
                scratch.rename(real)
            except OSError:
                if not real.exists():  # otherwise another process created it first
                    raise
        _sync_folder(real.parent)
        shutil.rmtree(scratch, ignore_errors=True)


def recover_folder(target: str | Path) -> None:
    """Rename a folder back that a killed `atomic_folder` had moved aside, if nothing took its place."""
    target = Path(target)
    if not target.name or target.exists() or not target.parent.is_dir():
        return
    ending = f"-{target.name[-32:]}{_ASIDE}"
    found = [path for path in target.parent.iterdir() if path.name.startswith(_SCRATCH)]
    aside = [path for path in found if path.name.endswith(ending) and path.is_dir()]
    if aside:
        max(aside, key=lambda path: path.stat().st_mtime).rename(target)


def _exchange(new: Path, old: Path) -> None:
    """Exchange two folders: in one step on Linux, otherwise by renames that a later call can undo.

    Afterwards `new` is the earlier folder. If a rename fails, nothing is deleted.
    """
    if _exchanged_at_once(new, old):
        return
    aside = new.with_name(f"{new.name}{_ASIDE}")
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException as error:
        aside.rename(old)
        if isinstance(error, OSError):
            said = f"this folder cannot be replaced: {error.strerror}; the new one is kept as {new.name}"
            raise InputError(said, path=old) from error
        raise
    aside.rename(new)


def _exchanged_at_once(new: Path, old: Path) -> bool:
    """Exchange two names by Linux's ``renameat2``; False where the system or file system lacks it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = call(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _RENAME_EXCHANGE)
    return done == 0


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Turn the operating system's errors about the target into an InputError; pass on all other errors."""
    try:
        yield
    except OSError as error:
        about = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else target
        if about.name.startswith(_SCRATCH):
            about = target
        if about != target and about not in target.absolute().parents and about not in target.parents:
            raise
        reason = error.strerror or str(error)
        raise InputError(f"this cannot be written: {reason}", path=about) from error
    except Exception as error:
        refused = _RUST_OS_ERROR.search(str(error))
        if refused is None:
            raise
        raise InputError(f"this cannot be written: {refused[1].strip()}", path=target) from error


def _regular(target: Path) -> Path:
    """The regular file that `target` points to, or `target` itself if it does not exist yet."""
    if target.is_symlink() and hasattr(os, "geteuid") and target.lstat().st_uid not in (0, os.geteuid()):
        raise InputError("this is a link of another user, so it is not followed", path=target)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if target.is_symlink():
            raise InputError(_NOWHERE, path=target) from None
        return target
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise InputError(f"this is {kind}, and only a regular file is replaced", path=target)
    return target.resolve()


def _sibling(target: Path) -> Path:
    """An unused name in the folder of `target`, with its suffix, below the limit of 255 bytes."""
    return target.with_name(f"{_SCRATCH}{secrets.token_hex(8)}-{target.name[-32:]}")


def _sync_tree(folder: Path) -> None:
    """Flush every file of a new folder, and give all of them the permissions of the umask.

    Some libraries write through `tempfile`, whose files only their owner may read.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    with suppress(OSError):  # not every platform and file system supports it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
