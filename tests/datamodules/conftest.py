"""A small shop, written to disk, and a cache of its own for every test."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write one file under the test's folder."""

    def write_file(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


@pytest.fixture
def shop(write: Callable[[str, str | bytes], Path]) -> Path:
    """Folder of 60 sessions of 2 to 9 clicks on 30 items, with times, users and a split column."""
    dice = random.Random(7)
    rows = []
    for session in range(60):
        part = "test" if session % 10 == 9 else "train"
        for click in range(dice.randint(2, 9)):
            item = dice.randrange(30)
            rows.append(f"s{session},u{session % 20},i{item:03d},{1000 * session + 10 * click},{part}")
    write("shop/events.csv", "session_id,user_id,item_id,timestamp,split\n" + "\n".join(rows) + "\n")
    items = [f'i{item:03d},"Item, no. {item}",brand {item % 3}' for item in range(30)]
    return write("shop/items.csv", "item_id,title,brand\n" + "\n".join(items) + "\n").parent
