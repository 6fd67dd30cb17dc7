"""Names of backbones: registered names in results, names of the papers in tables."""

from __future__ import annotations

import inspect

from llm4sbr.contracts.registry import BACKBONES, load_plugins


def backbones() -> list[str]:
    """List the registered backbones of this project, without the adapters for other libraries."""
    kinds = load_plugins(BACKBONES)
    return [name for name, kind in kinds.items() if kind.__module__.startswith("llm4sbr.backbones.")]


def title(backbone: str) -> str:
    """Return the name of a backbone in tables: the text before the colon in the docstring of its module.

    >>> title("DHCN"), title("SomeoneElses")
    ('S²-DHCN', 'SomeoneElses')
    """
    kind = load_plugins(BACKBONES).get(backbone)
    module = None if kind is None else inspect.getmodule(kind)
    name, colon, _ = (getattr(module, "__doc__", None) or "").partition(": ")
    return name if colon and len(name) <= 24 and "\n" not in name else backbone
