"""Plug-ins by entry point; the package's own backbones and data modules register in the same way."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from llm4sbr.contracts.errors import InputError

BACKBONES = "llm4sbr.backbones"
DATAMODULES = "llm4sbr.datamodules"
HEADS = "llm4sbr.heads"


class PluginWarning(UserWarning):
    """A plug-in could not be imported; all other plug-ins work."""


@cache
def load_plugins(group: str) -> dict[str, type]:
    """Import every class registered under an entry-point group.

    Args:
        group: `BACKBONES`, `HEADS` or `DATAMODULES`.

    Returns:
        Mapping from registered name to class.

    Raises:
        InputError: If two distributions register the same name.

    Warns:
        PluginWarning: If a plug-in fails to import; the warning names it and its distribution.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise InputError(
                f"two plug-ins register the name {entry.name!r} in {group!r}: "
                f"{other.value} ({_distribution(other)}) and {entry.value} ({_distribution(entry)})",
                hint="Uninstall one of the two distributions, or rename its entry point",
            )
        found[entry.name] = entry
    loaded: dict[str, type] = {}
    for name, entry in sorted(found.items()):
        try:
            loaded[name] = entry.load()
        except Exception as error:
            # One broken plug-in must not disable the others.
            warnings.warn(
                f"plug-in {name!r} ({entry.value}, from {_distribution(entry)}) was left out: "
                f"{type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )
    return loaded


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown distribution"
