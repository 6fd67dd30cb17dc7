"""What backbones are called: by registered name in results, by their papers' names in tables."""

from __future__ import annotations

import inspect

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.registry import BACKBONES, load_plugins


def backbones() -> list[str]:
    """Registered backbones of this project; adapters for other libraries' models are no model themselves."""
    kinds = load_plugins(BACKBONES)
    return [name for name, kind in kinds.items() if kind.__module__.startswith("llm4sbr.backbones.")]


def title(backbone: str) -> str:
    """A backbone's name in tables: what stands before the colon in its module's docstring.

    >>> title("DHCN"), title("SomeoneElses")
    ('S²-DHCN', 'SomeoneElses')
    """
    kind = load_plugins(BACKBONES).get(backbone)
    module = None if kind is None else inspect.getmodule(kind)
    name, colon, _ = (getattr(module, "__doc__", None) or "").partition(": ")
    return name if colon and len(name) <= 24 and "\n" not in name else backbone


def has_own_scores(backbone: str) -> bool:
    """Whether a backbone scores otherwise than by a product with the item embeddings."""
    kind = load_plugins(BACKBONES)[backbone]
    return bool(kind.score is not SessionBackbone.score)  # type: ignore[attr-defined]
