"""Small shops on disk: sessions that walk around a ring of items, so that the next click can be learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

BEADS = tuple(f"Bead {number}" for number in range(9))
PARTS = ("train", "train", "train", "validate", "test")  # for `write_shop`, where epochs are chosen
SOAPS = tuple(f"{'rose' if number % 2 else 'silk'} soap {number}" for number in range(12))


def write_shop(
    folder: Path,
    titles: Sequence[str] = BEADS,
    *,
    sessions: int = 40,
    clicks: Callable[[int], int] = lambda session: 3,
    parts: Sequence[str] | None = ("train", "train", "train", "train", "test"),
    item: Callable[[int, int], int] = lambda session, click: session + click,
) -> Path:
    """Write ``events.csv`` and ``items.csv``, and ``data.yaml`` for the command line.

    Args:
        folder: Made if it is not there.
        titles: One per item.
        sessions: How many.
        clicks: Clicks of a session.
        parts: Splits in turn; None for a table without the column.
        item: Item of a click, modulo the number of items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = ["session_id,item_id,timestamp" + (",split" if parts else "")]
    for session in range(sessions):
        part = f",{parts[session % len(parts)]}" if parts else ""
        for click in range(clicks(session)):
            name = f"i{item(session, click) % len(titles):02d}"
            events.append(f"s{session:03d},{name},{100 * session + click}{part}")
    (folder / "events.csv").write_text("\n".join([*events, ""]))
    items = [f"i{number:02d},{title}" for number, title in enumerate(titles)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *items, ""]))
    split = "split: {by: column}, " if parts else ""
    options = f"{{data_dir: {folder}, {split}cache_dir: {folder / 'cache'}}}"
    (folder / "data.yaml").write_text(f"class_path: SessionDataModule\ninit_args: {options}\n")
    return folder
