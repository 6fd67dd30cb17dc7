"""The cache folder of downloads, prepared data and converted weights."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(folder: str | Path | None = None) -> Path:
    """Find the root folder of llm4sbr's caches.

    It is the first of these that is set: `folder`, ``$LLM4SBR_CACHE``, ``$XDG_CACHE_HOME/llm4sbr``,
    ``~/.cache/llm4sbr``. A relative ``$XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification
    says. ``~`` is expanded in the first two.

    Args:
        folder: Folder that the user chose; None for the environment's or the default folder.
    """
    chosen = folder or os.environ.get("LLM4SBR_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "llm4sbr"
