"""Trained models with sequential rules as an additional head, at the weight that validation chooses."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from experiments.benchmarks.results import command_line
from experiments.study.checkpoints import trainer_for, with_checkpoints
from experiments.study.data import quiet_lightning
from experiments.study.fits import RankRecorder
from experiments.study.results import Study
from experiments.study.rows import Key, Run, key_of
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.heads import SequentialRules
from llm4sbr.nn.metrics import SessionRanking
from llm4sbr.runs.saved_run import SavedRun, load_run
from llm4sbr.training.sbr_module import SBRModule

CHOSEN_BY = "ndcg@20"
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def rules(study: Path, out: Path, weights: list[float] | None = None) -> None:
    """Test trained models with sequential rules as an additional head, at the weight that validation chooses.

    Nothing is trained. Each tested fit that still has a checkpoint is validated once for all weights, and
    tested once with the best weight by NDCG@20. Then ``table --studies '[OUT]'`` shows the lifts of wrapped
    over bare models with rules in both, and ``table --studies '[STUDY, OUT]' --over_plain true`` the lifts
    over models without rules. Saved fits are not repeated.

    Example::

        python -m experiments rules --study experiments/results/protocol-beauty.parquet
            --out experiments/results/protocol-beauty-rules.parquet

    Args:
        study: Results file of ``search`` or ``compare``.
        out: Results file.
        weights: Weights to choose from; 0, 0.5, 1, 1.5, 2, 3, 4 and 6 by default.
    """
    quiet_lightning()
    source, target = Study(study), Study(out)
    kept = target.kept()
    waiting = [run for run in source.tested() if key_of(run) not in kept]
    for run in source.tested():
        if key_of(run) in kept:
            print(f"{target.path}: {key_of(run)} is there already")
    for run in with_checkpoints(source) if waiting else ():
        if key_of(run) not in kept:
            one(run, list(weights or WEIGHTS), target)


def one(result: Run, weights: list[float], target: Study) -> None:
    """Choose the weight for the model of a fit, test it, and save the trials and the test."""
    run, key = load_run(result["log_dir"]), key_of(result)
    if any(isinstance(head, SequentialRules) for head in run.model.heads):
        raise InputError("this model has sequential rules already", value=str(key))
    run.data.prepare_data()
    head = SequentialRules()
    head.attach(run.model.backbone)
    head.read_training_sessions(run.data.examples("train"))  # type: ignore[attr-defined]
    found = validated(run, head, weights)
    best = max(range(len(weights)), key=lambda n: found[n][CHOSEN_BY])
    head.weight = weights[best]
    if head.weight:
        run.model.heads.append(head)
    same = {
        name: value for name, value in result.items() if name not in ("test", "history", "ranks", "session")
    }
    trials = [
        {
            **Key(key.backbone, key.variant, key.seed, trial)._asdict(),
            "settings": {**result["settings"], "rules": weight},
            "best_validation": reached[CHOSEN_BY],
            "history": [{f"val/{name}": value for name, value in reached.items()}],
        }
        for trial, (weight, reached) in enumerate(zip(weights, found, strict=True))
    ]
    tested = same | {
        "settings": {**result["settings"], "rules": weights[best]},
        "command": command_line(),
        "date": date.today().isoformat(),
        "trained_by": result["command"],
        "best_validation": found[best][CHOSEN_BY],
        **test(run),
    }
    target.extend([*trials, tested])
    print(f"{target.path}: {key}", weights[best], json.dumps(tested["test"]), flush=True)


def validated(run: SavedRun, head: SequentialRules, weights: list[float]) -> list[dict[str, float]]:
    """Return the validation metrics with every weight, from one pass."""
    found = [SessionRanking() for _ in weights]

    def measure(model: SBRModule, batches: tuple[SessionBatch], scores: Tensor) -> None:
        (batch,) = batches
        shares = head.log_shares(batch)
        for weight, metric in zip(weights, found, strict=True):
            metric.update(scores + weight * shares, batch.target)

    hook = run.model.register_forward_hook(measure)
    try:
        trainer_for(run, num_sanity_val_steps=0).validate(run.model, run.data, verbose=False)
    finally:
        hook.remove()
    return [{name: round(float(value), 5) for name, value in one.compute().items()} for one in found]


def test(run: SavedRun) -> dict[str, Any]:
    """Test a run and return metrics and ranks."""
    recorder = RankRecorder()
    (measured,) = trainer_for(run, callbacks=[recorder]).test(run.model, run.data, verbose=False)
    return {
        "test": {name: round(float(value), 5) for name, value in measured.items()},
        "ranks": np.concatenate(recorder.ranks),
        "session": run.data.examples("test").session,  # type: ignore[attr-defined]
    }
