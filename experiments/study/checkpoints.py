"""Checkpoints of the fits of a study, and a Trainer that evaluates them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from experiments.study.results import Study
from experiments.study.rows import Run, key_of
from llm4sbr.callbacks import ViewCache
from llm4sbr.runs.saved_run import SavedRun


def with_checkpoints(study: Study) -> Iterator[Run]:
    """Yield the tested fits that still have a checkpoint; the others are listed on stderr."""
    gone = []
    for run in study.tested():
        if list(Path(run["log_dir"]).glob("checkpoints/best*.ckpt")):
            yield run
        else:
            gone.append(str(key_of(run)))
    if gone:
        print(f"{study.path}: the checkpoints are missing of {', '.join(gone)}", file=sys.stderr)


def trainer_for(run: SavedRun, **options: Any) -> Trainer:
    """Create a Trainer that evaluates a run with the views of its training."""
    views = {name: value for name, value in (run.config.get("views") or {}).items() if value is not None}
    options["callbacks"] = [ViewCache(**views), *options.get("callbacks", ())]
    idle = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **idle, **options)
