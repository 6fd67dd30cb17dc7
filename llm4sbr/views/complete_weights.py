"""Refusal of model folders whose tensors are missing or match nothing: random weights would replace them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llm4sbr.contracts.errors import InputError

_SHOWN = 3
# A pooler follows the token embeddings, which mean pooling reads: many encoders are published without it.
_UNUSED = re.compile(r"(^|\.)pooler\.")
_HINT = "The folder is incomplete or of another model: get it again"


def require_all_weights(
    model: Any, info: Mapping[str, Any], path: str | Path, *, encoder: bool = False
) -> None:
    """Check that every weight of a model came from its files, and that the files fit the model.

    Args:
        model: Model of transformers.
        info: Loading info of `from_pretrained`.
        path: Folder or file of the weights.
        encoder: Whether the model is a text encoder, whose pooler is not used.

    Raises:
        InputError: If a weight is missing, has another shape, or belongs to a layer that the model lacks.

    Warns:
        UserWarning: If the files have other tensors that the model does not use.
    """
    missing = sorted(name for name in info["missing_keys"] if not (encoder and _UNUSED.search(name)))
    if missing:
        raise InputError(
            f"{len(missing)} of the model's weights are not in its files: {_some(missing)}",
            path=path,
            hint=_HINT,
        )
    odd = sorted(str(name) for name, *_ in info.get("mismatched_keys") or ())
    if odd:
        raise InputError(f"{len(odd)} weights have another shape: {_some(odd)}", path=path, hint=_HINT)
    unexpected = sorted(info.get("unexpected_keys") or ())
    forms = {_form(name) for name in model.state_dict()}
    further = [name for name in unexpected if _form(name) in forms]
    if further:
        raise InputError(
            f"the files have layers that the configuration lacks: {len(further)} weights, {_some(further)}",
            path=path,
            hint=_HINT,
        )
    if unexpected:
        warnings.warn(
            f"{path}: {len(unexpected)} tensors of the files match nothing in the model: {_some(unexpected)}",
            UserWarning,
            stacklevel=2,
        )


def require_same_names(found: Collection[str], expected: Collection[str], path: str | Path) -> None:
    """Check that an adapter's file has exactly the adapter's tensors.

    Raises:
        InputError: If a tensor is missing, or one matches nothing.
    """
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        parts = [
            *([f"{len(missing)} are missing, {_some(missing)}"] if missing else []),
            *([f"{len(unexpected)} match nothing, {_some(unexpected)}"] if unexpected else []),
        ]
        raise InputError(
            f"of the adapter's {len(expected)} tensors " + "; ".join(parts),
            path=path,
            hint="The folder is damaged, or its adapter_config.json belongs to another adapter",
        )


def _form(name: str) -> str:
    """Name without its layer numbers, such as those of ``layers.7``."""
    return re.sub(r"\d+", "#", name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
