"""Runs a helper in one process and in two, each of which leaves what it found in a JSON of its own."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from scripts import Started

from experiments.benchmarks.http_layers import free_port

HELPERS = Path(__file__).parent


def one_and_two(helper: str, folder: Path, *words: str) -> list[dict[str, Any]]:
    """What one process found, and what each of two did; the helper's words begin with OUT and DEVICES.

    The two are started here, which Lightning sees by LOCAL_RANK: forks have imported already.
    """
    alone = {**os.environ, "LLM4SBR_CACHE": str(folder / "cache")}
    pair = {**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    for group in ([alone], [{**pair, "LOCAL_RANK": rank} for rank in "01"]):
        given = (str(folder / "run"), str(len(group)), *words)
        started = [Started(folder, HELPERS / helper, *given, environment=own) for own in group]
        for process in started:
            status, _, told = process.wait(400)
            assert status == 0, told
            assert "It is recommended to use" not in told  # Lightning, of metrics that are not synced
    files = ("run-1.0.json", "run-2.0.json", "run-2.1.json")
    return [json.loads((folder / file).read_text()) for file in files]


def leave(out: Path, devices: int, found: dict[str, Any]) -> None:
    """Write what this process found to where `one_and_two` looks for it."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    Path(f"{out}-{devices}.{rank}.json").write_text(json.dumps(found))
