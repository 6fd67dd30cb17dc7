"""A small shop whose next click is predictable, and stand-ins for what takes tens of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM4SBR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def ring_shop(tmp_path: Path) -> Path:
    """40 sessions around a ring of 12 items: after item k comes k + 1."""
    events = ["session_id,item_id,timestamp,split"]
    for session in range(40):
        for click in range(2 + session % 4):
            part = "test" if session % 5 == 4 else "train"
            events.append(f"s{session:03d},i{(session + click) % 12:02d},{100 * session + click},{part}")
    folder = tmp_path / "ring"
    folder.mkdir()
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    titles = [f'i{item:02d},"Bead {item}, <b>blue</b>"' for item in range(12)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(titles) + "\n")
    return folder
