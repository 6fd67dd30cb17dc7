"""RecBole's split session files ``NAME.{train,valid,test}.inter``: a prefix and its next item a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from llm4sbr.contracts.errors import InputError

PARTS = {"train": "train", "valid": "validate", "test": "test"}


def part_files(folder: Path, name: str | None) -> list[Path]:
    """Return the files of a split data set in the order of `PARTS`; an empty list if there is none.

    Raises:
        InputError: If some of the parts are missing.
    """
    found = sorted(folder.glob(f"{name or '*'}.train.inter"))
    if len(found) != 1:
        return []
    stem = found[0].name.removesuffix(".train.inter")
    files = [folder / f"{stem}.{part}.inter" for part in PARTS]
    for path in files:
        if not path.is_file():
            raise InputError("this part of the data set is missing", path=path)
    return files


def sessions_of_parts(files: Sequence[Path], tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Restore the clicks of the sessions from their prefixes and targets.

    Every line of a session is a prefix of the session's longest line; its target is the item that follows.

    Args:
        files: The files in the order of `PARTS`, for error messages.
        tables: Their tables with ``session_id, item_id_list, item_id``.

    Returns:
        One row per click: ``session_id, item_id, timestamp`` (the number of the row) and ``split``. Ids of
        sessions begin with the name of their part, because RecBole numbers each part anew.

    Raises:
        InputError: If a column is missing, or two lines of a session contradict each other.
    """
    every = []
    for path, table, (part, split) in zip(files, tables, PARTS.items(), strict=True):
        for column in ("session_id", "item_id_list", "item_id"):
            if column not in table.columns:
                raise InputError(
                    "a column is missing", path=path, value=column, hint=f"It has {', '.join(table.columns)}"
                )
        sessions: dict[str, list[str]] = {}
        for row, (session, prefix, target) in enumerate(
            table.select("session_id", "item_id_list", "item_id").iter_rows(), start=1
        ):
            if session is None or not prefix or target is None:
                raise InputError("an id is missing", path=path, row=row)
            clicks = [*prefix.split(), target]
            known = sessions.setdefault(session, clicks)
            longer, shorter = (known, clicks) if len(known) >= len(clicks) else (clicks, known)
            if longer[: len(shorter)] != shorter:
                raise InputError(
                    "this line contradicts an earlier one of its session", path=path, row=row, value=session
                )
            sessions[session] = longer
        every.append(
            pl.DataFrame(
                {
                    "session_id": [f"{part}-{session}" for session in sessions],
                    "item_id": list(sessions.values()),
                    "split": [split] * len(sessions),
                }
            ).explode("item_id")
        )
    return pl.concat(every).with_row_index("timestamp")
