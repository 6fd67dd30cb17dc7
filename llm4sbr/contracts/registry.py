"""Plug-ins by entry point; the package's own backbones and data modules register in the same way."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
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

    An entry point names a class, which is registered under the entry's name, or a tuple of classes, each of
    which is registered under its own.

    Args:
        group: `BACKBONES`, `HEADS` or `DATAMODULES`.

    Returns:
        Mapping from registered name to class.

    Raises:
        InputError: If two distributions register the same name.

    Warns:
        PluginWarning: If a plug-in fails to import; the warning names it and its distribution.
    """
    found: dict[str, tuple[type, EntryPoint]] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: one.name):
        for name, kind in _load(entry).items():
            other = found.setdefault(name, (kind, entry))
            if other[0] is not kind:
                first, second = (f"{one.value} ({_distribution(one)})" for one in (other[1], entry))
                raise InputError(
                    f"two plug-ins register the name {name!r} in {group!r}: {first} and {second}",
                    hint="Uninstall one of the two distributions, or rename its entry point",
                )
    return {name: kind for name, (kind, _) in sorted(found.items())}


def find_class(group: str, path: str) -> type | None:
    """Find a registered class by its dotted path, and import no more than that.

    A package that an entry point names may list its classes in ``HOMES``, a mapping from class name to the
    module inside the package. Only then a class is found without the import of all others.

    Args:
        group: `BACKBONES`, `HEADS` or `DATAMODULES`.
        path: Module and name of the class.

    Returns:
        The class; None if no package lists it, and `load_plugins` may know it.

    >>> find_class(BACKBONES, "llm4sbr.backbones.sasrec.SASRec").__name__
    'SASRec'
    >>> find_class(BACKBONES, "os.system")
    """
    module, _, name = path.rpartition(".")
    for entry in entry_points(group=group):
        if not module.startswith(f"{entry.module}."):
            continue
        homes = getattr(import_module(entry.module), "HOMES", {})
        if module == f"{entry.module}.{homes.get(name)}":
            found = getattr(import_module(module), name)
            return found if isinstance(found, type) else None
    return None


def _load(entry: EntryPoint) -> dict[str, type]:
    """Import what an entry point names; one that cannot be imported is left out with a warning."""
    try:
        loaded = entry.load()
    except Exception as error:
        # One broken plug-in must not disable the others.
        warnings.warn(
            f"plug-in {entry.name!r} ({entry.value}, from {_distribution(entry)}) was left out: "
            f"{type(error).__name__}: {error}",
            PluginWarning,
            stacklevel=3,
        )
        return {}
    return {kind.__name__: kind for kind in loaded} if isinstance(loaded, tuple) else {entry.name: loaded}


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown distribution"
