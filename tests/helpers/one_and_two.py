"""Runs a helper in one process and in two, each of which leaves what it found in a JSON of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HELPERS = Path(__file__).parent


def one_and_two(helper: str, folder: Path, *words: str) -> list[dict[str, Any]]:
    """What one process found, and what each of two did; the helper's words begin with OUT and DEVICES."""
    environment = {**os.environ, "LLM4SBR_CACHE": str(folder / "cache")}
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(HELPERS / helper), str(folder / "run"), devices, *words],
            env=environment, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "It is recommended to use" not in done.stderr  # Lightning, of metrics that are not synced
    files = ("run-1.0.json", "run-2.0.json", "run-2.1.json")
    return [json.loads((folder / file).read_text()) for file in files]


def leave(out: Path, devices: int, found: dict[str, Any]) -> None:
    """Write what this process found to where `one_and_two` looks for it."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    Path(f"{out}-{devices}.{rank}.json").write_text(json.dumps(found))
