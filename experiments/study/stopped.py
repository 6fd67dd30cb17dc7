"""Notes of the words that began each fit; by them a command finds the run that it resumes."""

from __future__ import annotations

import json
from pathlib import Path

from llm4sbr.callbacks.resume_point import NAME as CHECKPOINT
from llm4sbr.contracts.files import write_text

NOTE = "begun.json"  # in a fit's folder


def stopped_run(folder: Path, words: list[str]) -> Path | None:
    """Find the run of a fit that was stopped; where there is none, note what the next run is begun with.

    A run of other words is never found, so that a fit with changed settings begins anew.

    Args:
        folder: Folder of the fit, with a ``version_N`` for each run.
        words: Words of ``llm4sbr fit`` for this fit.
    """
    note = folder / NOTE
    if note.exists():
        begun = json.loads(note.read_text("utf-8"))
        run = folder / f"version_{begun['version']}"
        if begun["words"] == words and (run / "checkpoints" / CHECKPOINT).is_file():
            return run
    versions = [int(path.name.removeprefix("version_")) for path in folder.glob("version_*")]
    begins = {"version": max(versions, default=-1) + 1, "words": words}  # as the logger counts
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(begins, indent=1) + "\n")
    return None
