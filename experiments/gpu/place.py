"""Common functions of the jobs: places on the machine, time limit, and files that a job hands over."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
PIECE = 15 << 20  # bytes of one file that is handed over
_PACKAGES = ("llm4sbr", "torch", "lightning", "torch-geometric", "transformers", "peft", "numpy", "polars")


class Clock:
    """A time limit.

    Args:
        minutes: From now on.
    """

    def __init__(self, minutes: float) -> None:
        self.began, self.ends = time.monotonic(), time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every job."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--work", type=Path, required=True, help="folder of the job; a job resumes from its content"
    )
    made.add_argument("--minutes", type=float, default=7.0, help="stop in good order after that time")
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    return made


def device_words(device: str) -> list[str]:
    """The `llm4sbr` words that train on a device."""
    return ["--trainer.accelerator", "gpu" if device == "cuda" else "cpu", "--trainer.devices", "1"]


def card() -> str:
    """The name of the GPU, or of the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def versions() -> dict[str, str]:
    """What is installed of the packages that decide results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_json(path: Path, content: Any) -> None:
    """Write a JSON; a killed job leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def llm4sbr(*words: str) -> None:
    """Run the command line in this process.

    Raises:
        SystemExit: It failed.
    """
    from llm4sbr.cli.main import main

    if status := main(words):
        raise SystemExit(f"llm4sbr {' '.join(words[:2])} ended with status {status}")


def stale(checkout: Path) -> list[str]:
    """Files of the checkout's package that are not what is installed."""
    import llm4sbr as installed

    here = Path(installed.__file__).parent
    return [
        str(path.relative_to(checkout))
        for room, inside in (("llm4sbr", ""), ("backbones", "backbones"), ("datamodules", "datamodules"))
        for path in sorted((checkout / room).rglob("*.py"))
        if not (other := here / inside / path.relative_to(checkout / room)).is_file()
        or other.read_bytes() != path.read_bytes()
    ]


def hand_over(name: str, work: Path, patterns: Iterable[str], out: Path, note: dict[str, Any]) -> list[Path]:
    """Write what a job leaves as one archive, in pieces, and a JSON that says what it is.

    Args:
        name: Of the job.
        work: Its folder.
        patterns: Which files of it.
        out: Where the pieces go: ``NAME.json``, ``NAME.tar.xz.00``, …
        note: Goes into the JSON.
    """
    files = sorted({path for one in patterns for path in work.glob(one) if path.is_file()})
    out.mkdir(parents=True, exist_ok=True)
    written, total = [], hashlib.sha256()
    with tempfile.TemporaryFile() as scratch:
        with tarfile.open(fileobj=scratch, mode="w:xz", preset=1) as archive:  # type: ignore[call-overload]
            for path in files:
                archive.add(path, str(path.relative_to(work)))
        scratch.seek(0)
        while piece := scratch.read(PIECE):
            written.append(out / f"{name}.tar.xz.{len(written):02d}")
            written[-1].write_bytes(piece)
            total.update(piece)
    manifest = {
        "job": name,
        "date": datetime.now().isoformat(timespec="seconds"),
        "card": card(),
        "versions": versions(),
        "pieces": [path.name for path in written],
        "sha256": total.hexdigest(),
        **note,
    }
    write_json(out / f"{name}.json", manifest)
    return [out / f"{name}.json", *written]


def unpacked(path: Path, target: Path) -> dict[str, Any]:
    """Join what `hand_over` wrote, and unpack it over what is in a folder; returns the JSON.

    Raises:
        SystemExit: A piece is missing or damaged.
    """
    manifest: dict[str, Any] = json.loads(path.read_text())
    total = hashlib.sha256()
    with tempfile.TemporaryFile() as scratch:
        for name in manifest["pieces"]:
            if not (piece := path.parent / name).is_file():
                raise SystemExit(f"{piece} is missing")
            content = piece.read_bytes()
            total.update(content)
            scratch.write(content)
        if total.hexdigest() != manifest["sha256"]:
            raise SystemExit(f"the pieces of {path} are not what was handed over")
        scratch.seek(0)
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=scratch, mode="r:xz") as archive:
            archive.extractall(target, filter="data")
    return manifest


def say(text: str) -> None:
    """Print at once, also where the output is a file."""
    print(text, flush=True)


# `experiments` is not installed. Last on the path: the packed llm4sbr runs, not the checkout's.
if str(HERE.parents[1]) not in sys.path:
    sys.path.append(str(HERE.parents[1]))
