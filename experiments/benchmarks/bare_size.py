"""The size of what serving needs: the distributions that docs/serving.md names, and what they require."""

from __future__ import annotations

import re
import shlex
import sysconfig
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from experiments.benchmarks.results import keep, row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def bare_size(json: Path | None = None) -> None:
    """Measure the installed size of what a serving machine needs, here, by the files in each RECORD.

    Example::

        python -m experiments benchmarks bare_size --json experiments/results/bare_size.json

    Args:
        json: File for the rows.
    """
    names = serving_requirements()
    few, more = needed(names), needed([*names, *server_requirements()])
    everything = needed(map(str, requirements("llm4sbr")))
    sizes = {one.name: size(one) for one in more}
    torch, own = sizes["torch"], size(installed("llm4sbr"))
    server = {one.name for one in more} - {one.name for one in few}
    note = ", ".join(sorted(one.name for one in few))
    least = sum(sizes[one.name] for one in few) - torch
    keep(
        "bare_size",
        [
            row("recommend, without torch", least / 1e6, "MB", note=note),
            row("recommend, distributions", len(few), ""),
            row("torch", torch / 1e6, "MB", note=distribution("torch").version),
            row("llm4sbr", own / 1e6, "MB"),
            row("serve, beside recommend", sum(sizes[name] for name in server) / 1e6, "MB"),
            row("all of llm4sbr, without torch", (sum(map(size, everything)) - torch) / 1e6, "MB"),
            row("all of llm4sbr, distributions", len(everything), ""),
        ],
        json,
    )  # fmt: skip


def serving_requirements(page: Path = PAGE) -> list[str]:
    """Requirements in the ``pip install`` of docs/serving.md for the machine that serves."""
    line = re.search(r"^\$ pip install (torch .*)$", page.read_text("utf-8"), re.MULTILINE)
    assert line is not None
    return shlex.split(line[1])


def server_requirements() -> list[str]:
    """Requirements of the extra `serve`."""
    both, plain = requirements("llm4sbr", "serve"), requirements("llm4sbr")
    return [str(one) for one in both if one not in plain]


def requirements(name: str, extra: str = "") -> list[Requirement]:
    """Requirements of an installed distribution that hold here, with an extra."""
    every = map(Requirement, installed(name).requires or ())
    return [
        one
        for one in every
        if one.marker is None
        or one.marker.evaluate({"extra": ""})
        or (extra and one.marker.evaluate({"extra": extra}))
    ]


def installed(name: str) -> Distribution:
    """The installed distribution of a name, and not what a build has left in a checkout on `sys.path`."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return next(iter(distributions(name=name, path=places)), None) or distribution(name)


def needed(names: Iterable[str]) -> list[Distribution]:
    """Installed distributions of requirements, with all that they require, each once."""
    found: dict[str, Distribution] = {}
    waiting, seen = [Requirement(name) for name in names], set()
    for one in waiting:  # grows
        name = canonicalize_name(one.name)
        found.setdefault(name, installed(name))
        for extra in ("", *sorted(one.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += requirements(name, extra)
    return list(found.values())


def size(one: Distribution) -> int:
    """Bytes of a distribution's files, compiled ones as far as its RECORD lists them."""
    paths = [Path(str(one.locate_file(entry))) for entry in one.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())
