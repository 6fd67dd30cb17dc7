"""Identities of models and engines, from which the fingerprints of answers and views are computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def digest(payload: object) -> str:
    """Hash a JSON value to 32 hex digits, independent of key order.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(payload, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of a model's weights: a label for the user and a content hash for the key.

    Args:
        name: Name that the user gave; a label, not part of any key.
        fingerprint: Hash of the weight, tokenizer and configuration files.
        revision: Revision on a hub or a server, if there is one.
    """

    name: str
    fingerprint: str
    revision: str | None = None

    def key(self) -> list[str | None]:
        """Return the parts that enter a fingerprint."""
        return [self.fingerprint, self.revision]


@dataclass(frozen=True)
class EngineIdentity:
    """Identity of a language model together with its decoding.

    Args:
        model: Identity of the base model.
        decoding: Every parameter that can change an answer: strategy, ``max_new_tokens``, dtype, …
        chat_template: Text of the chat template; empty for a model without one.
        adapter: Identity of a fine-tuned adapter on top of the model.
    """

    model: ModelIdentity
    decoding: Mapping[str, str | int | float | bool] = field(hash=False)
    chat_template: str
    adapter: ModelIdentity | None = None

    def key(self) -> dict[str, Any]:
        """Return the parts that enter a fingerprint."""
        return {
            "model": self.model.key(),
            "adapter": self.adapter.key() if self.adapter else None,
            "decoding": dict(self.decoding),
            "chat_template": self.chat_template,
        }
