"""Downloads that are complete and verified, or leave no file."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_file

_CHUNK = 1 << 16


def fetch(url: str, destination: str | Path, checksum: str, *, timeout: float = 30.0) -> Path:
    """Download a file and check it; a failure leaves no file.

    Args:
        url: URL of the file, ``http`` or ``https``.
        destination: Path of the file. An existing file with the checksum is kept.
        checksum: Expected checksum, ``md5:...`` or ``sha256:...``.
        timeout: Maximum time without a response or a byte, in seconds.

    Raises:
        InputError: If the network, URL, length or checksum fails; the message says where to put the file by
            hand.
    """
    destination = Path(destination)
    algorithm, _, expected = checksum.partition(":")
    if algorithm not in ("md5", "sha256") or not expected:
        raise InputError("a checksum is md5:... or sha256:...", value=checksum)
    if not url.startswith(("http://", "https://")):
        raise InputError("only http and https addresses are fetched", value=url)
    if destination.is_file():
        with destination.open("rb") as stream:
            if hashlib.file_digest(stream, algorithm).hexdigest() == expected.lower():
                return destination
    with atomic_file(destination) as file:
        try:
            found = _stream(url, file, algorithm, destination.name, timeout)
        except (OSError, ValueError, http.client.HTTPException) as error:
            hint = f"Download it elsewhere and put it at {destination}"
            raise InputError(f"{url} could not be fetched ({error})", path=destination, hint=hint) from error
        if found != expected.lower():
            raise InputError(
                f"what {url} sent has another checksum than published",
                path=destination,
                value=f"{algorithm}:{found}",
            )
    return destination


def _stream(url: str, file: BinaryIO, algorithm: str, title: str, timeout: float) -> str:
    """Write the response body to `file` and return its digest."""
    digest = hashlib.new(algorithm)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(url, timeout=timeout) as response,
        Progress(*columns, transient=True) as progress,
    ):
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None else None
        task = progress.add_task(title, total=total)
        received = 0
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
            progress.update(task, completed=received)
    if total is not None and received != total:
        raise OSError(f"only {received} of {total} bytes came")
    return digest.hexdigest()


def unpack(archive: str | Path, destination: str | Path, members: Sequence[str]) -> list[Path]:
    """Extract named members of a zip archive into one folder, without subfolders.

    Args:
        archive: Zip file.
        destination: Target folder; each member is written there under its base name.
        members: Names of the members in the archive.

    Raises:
        InputError: If the archive is damaged, lacks a member, or holds a name that leads out of the folder.
    """
    destination = Path(destination)
    try:
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                inside = PurePosixPath(name.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts:
                    raise InputError(
                        "the archive holds a name that leads out of it", path=archive, value=name
                    )
            taken = {member: content.read(member) for member in members}
    except InputError:
        raise
    except Exception as error:  # zipfile raises many error types on damaged, encrypted and odd archives
        raise InputError(
            f"the archive is damaged, incomplete or encrypted ({error})", path=archive
        ) from error
    files = []
    for member, data in taken.items():
        file = destination / PurePosixPath(member).name
        with atomic_file(file) as stream:
            stream.write(data)
        files.append(file)
    return files
