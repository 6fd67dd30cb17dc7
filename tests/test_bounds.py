"""`requirements/lowest.txt` has the lowest versions that `pyproject.toml` allows, torch's excepted."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_the_lowest_versions_are_those_of_the_bounds():
    """`make lowest` tries them. Seen to fail with a bound that was raised in one of the two files alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"]
    needed = [
        Requirement(text)
        for text in (*project["dependencies"], *more["openai"], *more["experiments"], *more["serve"])
    ]
    bounds = {
        (one.name, bound.version) for one in needed for bound in one.specifier if bound.operator == ">="
    }
    lines = (ROOT / "requirements" / "lowest.txt").read_text().split("\n\n")[0].splitlines()
    lowest = {tuple(line.split("==")) for line in lines if not line.startswith("#")}
    assert lowest == {(name, version) for name, version in bounds if name != "torch"}
