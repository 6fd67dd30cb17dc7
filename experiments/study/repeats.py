"""Effect of the session's own items on the metrics of trained models."""

from __future__ import annotations

import json as text
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.benchmarks.results import result, save
from experiments.study.checkpoints import trainer_for, with_checkpoints
from experiments.study.data import quiet_lightning
from experiments.study.lifts import LIFTED, model
from experiments.study.results import Study
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.nn.metrics import SessionRanking
from llm4sbr.runs.saved_run import load_run


def repeats(studies: list[Path], json: Path | None = None) -> None:
    """Measure the effect of the session's own items on the validation metrics of trained models.

    Each tested fit that still has a checkpoint is validated in one pass with two rankings: as it is, and with
    the session's own items barred. In data without repeated clicks, the difference is the loss by ranking
    these items; in data with repeated clicks, it is their gain. Nothing is trained, and the test split is not
    read. The setting ``repeat_explore`` adds the head that learns which case applies.

    Example::

        python -m experiments repeats --studies '[experiments/results/protocol-beauty-one-seed.parquet]'
            --json experiments/results/repeats.json

    Args:
        studies: Results files of ``search`` or ``compare``.
        json: File for the results; rows of other models in it stay.
    """
    quiet_lightning()
    rows: list[dict[str, Any]] = (
        list(text.loads(json.read_text())["details"]) if json and json.exists() else []
    )
    print("| model | " + " | ".join(LIFTED) + " | targets that repeat |\n|---|" + "---|" * (len(LIFTED) + 1))
    for study in map(Study, studies):
        for run in with_checkpoints(study):
            row = {
                "study": study.name,
                "backbone": model(run),
                "variant": run["variant"],
                "seed": run["seed"],
            }
            rows = [one for one in rows if any(one[name] != value for name, value in row.items())]
            row |= measure(run["log_dir"])
            rows.append(row)
            cells = [f"{100 * row['kept'][name]:.2f} → {100 * row['barred'][name]:.2f}" for name in LIFTED]
            count = f"{row['repeated_targets']:,} of {row['examples']:,}"
            name = " ".join([study.name, row["backbone"], row["variant"], str(row["seed"])])
            print("| " + " | ".join([name, *cells, count]) + " |")
            if json:
                save(json, result("repeats", [one for row in rows for one in flat(row)], details=rows))


def flat(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Put the figures of a model into the common format of all results."""
    name = f"{row['study']}, {row['backbone']} {row['variant']}"
    note = f"seed {row['seed']}, validation; {row['repeated_targets']} of {row['examples']} targets repeat"
    return [
        {"what": f"{name}: {metric}, {how}", "value": row[how][metric], "unit": "share", "note": note}
        for metric in LIFTED
        for how in ("kept", "barred")
    ]


def barred(scores: Tensor, batch: SessionBatch) -> Tensor:
    """Return the scores ``(B, V)`` with the items of each session below all others."""
    columns = batch.item_ids.where(batch.item_ids > 0, batch.item_ids[:, :1]) - 1  # padding: the first click
    return scores.scatter(1, columns, -math.inf)


def measure(log_dir: str) -> dict[str, Any]:
    """Return validation metrics with the session's own items kept and barred, and the repeated targets."""
    run = load_run(log_dir)
    found = {"kept": SessionRanking(), "barred": SessionRanking()}
    repeated = examples = 0

    def watch(model: LightningModule, batches: tuple[SessionBatch], scores: Tensor) -> None:
        nonlocal repeated, examples
        (batch,) = batches
        found["kept"].update(scores, batch.target)
        found["barred"].update(barred(scores, batch), batch.target)
        repeated += int((batch.item_ids == batch.target.unsqueeze(1)).any(1).sum())
        examples += len(batch.target)

    hook = run.model.register_forward_hook(watch)
    try:
        trainer_for(run, num_sanity_val_steps=0).validate(run.model, run.data, verbose=False)
    finally:
        hook.remove()
    metrics = {
        how: {name: round(float(value), 5) for name, value in one.compute().items()}
        for how, one in found.items()
    }
    return {"examples": examples, "repeated_targets": repeated, **metrics}
