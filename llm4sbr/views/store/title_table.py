"""Tables of title embeddings on disk: one safetensors file per encoder and catalogue."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from llm4sbr.contracts.files import atomic_file
from llm4sbr.contracts.finite import require_finite
from llm4sbr.views.store.database import StoreError, named_errors


def write_table(path: Path, titles: Tensor, mask: Tensor) -> str:
    """Write a table atomically; returns the file's SHA-256.

    Shapes:
        - titles: ``(V, d_t)`` float32, mask: ``(V,)`` bool, True if the item has a title

    Raises:
        InputError: An embedding is not finite, or the file cannot be written.
    """
    require_finite(titles, "the title embeddings", path=path)
    content = save({"titles": titles.float().contiguous().cpu(), "mask": mask.bool().contiguous().cpu()})
    with named_errors(path), atomic_file(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read_table(path: Path, sha256: str) -> tuple[Tensor, Tensor]:
    """Read a table and verify its checksum.

    Raises:
        StoreError: The file is missing, truncated, changed or replaced by another.
        InputError: An embedding is not finite.
    """
    hint = "Run `llm4sbr views infer` again: it rebuilds the title table and keeps every answer"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError("the table of title embeddings cannot be read", path=path, hint=hint) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError("the table of title embeddings was changed or truncated", path=path, hint=hint)
    try:
        tensors = load(content)
        titles, mask = tensors["titles"], tensors["mask"].to(torch.bool)
    except (SafetensorError, KeyError) as error:
        raise StoreError("this is not a table of title embeddings", path=path, hint=hint) from error
    require_finite(titles, "the title embeddings", path=path, hint=hint)
    return titles, mask
