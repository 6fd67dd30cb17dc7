"""The search space: settings of all models, settings of the wrapper, and the draw of each trial."""

from __future__ import annotations

import random
from typing import Any

import yaml

from experiments.study.settings import Settings
from llm4sbr.contracts.errors import InputError

Space = dict[str, Any]  # values of each setting under `common` and `wrapped`, settings under `starts`


def read(text: str) -> Space:
    """Read a space from YAML.

    Raises:
        InputError: A start has a setting that the space lacks, so bare and wrapped models would differ.
    """
    space: Space = yaml.safe_load(text)
    known = {*space.get("common", {}), *space.get("wrapped", {})}
    for start in space.get("starts", ()):
        if unknown := sorted(set(start) - known):
            raise InputError("a start sets what is not in the search space", value=unknown)
    return space


def parts(wrapped: bool) -> tuple[str, ...]:
    """Return the parts of a space that a model searches."""
    return ("common", "wrapped") if wrapped else ("common",)


def choices(space: Space, *, wrapped: bool) -> dict[str, list[Any]]:
    """Return all values of each setting in any trial; starts may have further values than the draws.

    >>> space = {"common": {"lr": [1, 2]}, "wrapped": {"tau": [4]}, "starts": [{"lr": 9}]}
    >>> choices(space, wrapped=False)
    {'lr': [1, 2, 9]}
    """
    found = {name: list(values) for part in parts(wrapped) for name, values in space.get(part, {}).items()}
    for start in space.get("starts", ()):
        for name, value in start.items():
            if name in found and value not in found[name]:
                found[name].append(value)
    return found


def draw(space: Space, trial: int, *, wrapped: bool) -> Settings:
    """Return the settings of a trial: first values for trial 0, then the starts, then random draws.

    Settings that a start leaves out have their first value; a bare model takes the common part of a start.
    The draw depends only on the trial number, so bare and wrapped models have the same common settings.

    >>> space = {"common": {"lr": [1, 2, 3]}, "wrapped": {"tau": [4, 5, 6]}}
    >>> draw(space, 0, wrapped=True)
    {'lr': 1, 'tau': 4}
    >>> all(draw(space, n, wrapped=True) | draw(space, n, wrapped=False) == draw(space, n, wrapped=True)
    ...     for n in range(20))
    True
    >>> draw({**space, "starts": [{"lr": 9, "tau": 8}]}, 1, wrapped=False)
    {'lr': 9}
    """
    settings: Settings = {}
    starts = [{}, *space.get("starts", ())]
    for part in parts(wrapped):
        dice = random.Random(f"{part} {trial}")
        for name, values in space.get(part, {}).items():
            if trial < len(starts):
                settings[name] = starts[trial].get(name, values[0])
            else:
                settings[name] = dice.choice(values)
    return settings
