"""Reads what an offline run of Weights & Biases wrote, from its own description of the file.

Blocks of 32 KiB after a header of 7 bytes; records of checksum, length and type (whole, first, middle, last).
"""

import json
import struct
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def records(path: Path) -> list[Any]:
    """Every record, in order."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts, found = path.read_bytes(), HEADER, b"", []
    assert content[:4] == b":W&B"
    while at + HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        if kind == 0:
            break
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, in order."""
    return [_items(r.history.item) for r in records(path) if r.WhichOneof("record_type") == "history"]


def summary(path: Path) -> dict[str, Any]:
    """The last value of each entry of the summary."""
    found: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= _items(record.summary.update)
    return found


def config(path: Path) -> dict[str, Any]:
    """What the run says of itself."""
    found: dict[str, Any] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            found |= _items((record.run.config if kind == "run" else record.config).update)
    return found


def artifacts(path: Path) -> list[Any]:
    """What was kept as artifacts, in order."""
    return [r.artifact for r in records(path) if r.WhichOneof("record_type") == "artifact"]
