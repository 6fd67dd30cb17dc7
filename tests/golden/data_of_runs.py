"""The golden runs' data: 60 sessions over 30 titled items, an encoder and an LLM that compute by hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from letters import Letters
from shops import PARTS, write_shop
from torch import Tensor
from views_stubs import StubEngine

from llm4sbr.datamodules import SessionDataModule, SplitBy

KINDS = ("soap", "cream", "brush", "polish", "shampoo")
SCENTS = ("rose", "lemon", "argan", "silk", "night", "mint")
TITLES = tuple(f"{scent} {kind} {len(kind) * 10} ml" for kind in KINDS for scent in SCENTS)
TEXT_DIM = 24


def hex_of(number: float) -> str:
    """A float to the last bit: ``0x1.8p+1``."""
    return re.sub(r"\.?0+p", "p", float(number).hex())


def sha256(*parts: bytes | str | Tensor) -> str:
    """Half of a SHA-256 over texts and tensors' bytes."""
    made = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().contiguous().numpy().tobytes()
        made.update(part.encode() if isinstance(part, str) else part)
    return made.hexdigest()[:32]


def hashed_numbers(name: str, count: int) -> list[float]:
    """Numbers in [-1, 1) that depend on the name alone, on any machine."""
    raw = hashlib.shake_256(name.encode()).digest(4 * count)
    return [(number >> 8) / 2.0**23 - 1.0 for number in struct.unpack(f"<{count}I", raw)]


class HashedWords(Letters):
    """An encoder: the normalised sum of the words' hashed vectors, added exactly."""

    identity = dataclasses.replace(Letters.identity, name="hashed words", fingerprint="hashed words 1")

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``(len(texts), 24)``."""
        rows = []
        for text in texts:
            words = [hashed_numbers(word, TEXT_DIM) for word in text.lower().split()]
            total = [math.fsum(column) for column in zip(*words, strict=True)] or [0.0] * TEXT_DIM
            length = math.sqrt(math.fsum(number * number for number in total)) or 1.0
            rows.append([number / length for number in total])
        return torch.tensor(rows, dtype=torch.float64).float()


def answer(prompt: str) -> str:
    """What the stub of an LLM says: one of the listed titles, by the prompt's hash, and two words more."""
    listed = re.findall(r"^\d+\. (.*)$", prompt, flags=re.MULTILINE)
    return f"{listed[hashlib.sha256(prompt.encode()).digest()[0] % len(listed)]} gift set"


def engine() -> StubEngine:
    """The stub of an LLM; it keeps what it was asked."""
    return StubEngine(answer, name="golden")


def write_data(folder: Path) -> Path:
    """Write the shop's tables. Every fourth click or so repeats an item of its session."""
    return write_shop(
        folder,
        TITLES,
        sessions=60,
        clicks=lambda session: 2 + (session + session // 5) % 5,  # of all lengths in every split
        parts=PARTS,
        item=lambda session, click: (
            7 * session + session // 30 + (1 + session % 4) * (click - 2 * (click == 3))
        ),
    )


def data_options(folder: Path, **own: Any) -> dict[str, Any]:
    """Options of the data module, in plain values."""
    return {
        "data_dir": str(folder),
        "cache_dir": str(folder / "cache"),
        "max_length": 5,
        "batch_size": 16,
        "eval_batch_size": 10,
        "session_graph": True,
        "bucket": 0,
        **own,
    }


def make_data(folder: Path, **own: Any) -> SessionDataModule:
    """The data module."""
    return SessionDataModule(split=SplitBy(by="column"), **data_options(folder, **own))
