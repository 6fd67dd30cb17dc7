"""Which model answers, and which weights it has: what the fingerprints of answers and views cover."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def digest(payload: object) -> str:
    """32 hex digits of a JSON value, independent of key order.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(payload, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights: a label for people and a content hash for the key.

    Args:
        name: What the user called the model; a label, not part of any key.
        fingerprint: Hash of the weight, tokenizer and configuration files.
        revision: Revision on a hub or a server, where there is one.
    """

    name: str
    fingerprint: str
    revision: str | None = None

    def key(self) -> list[str | None]:
        """What goes into a fingerprint."""
        return [self.fingerprint, self.revision]


@dataclass(frozen=True)
class EngineIdentity:
    """Which language model answers, and how it decodes.

    Args:
        model: The base model.
        decoding: Every parameter that can change an answer: strategy, ``max_new_tokens``, dtype, …
        chat_template: The chat template's text; empty for a model without one.
        adapter: A fine-tuned adapter on top of the model.
    """

    model: ModelIdentity
    decoding: Mapping[str, str | int | float | bool] = field(hash=False)
    chat_template: str
    adapter: ModelIdentity | None = None

    def key(self) -> dict[str, Any]:
        """What goes into a fingerprint."""
        return {
            "model": self.model.key(),
            "adapter": self.adapter.key() if self.adapter else None,
            "decoding": dict(self.decoding),
            "chat_template": self.chat_template,
        }
