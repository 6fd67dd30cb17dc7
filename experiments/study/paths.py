"""Known, predicted and absent views: one trained model, tested on three paths."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn.functional import cosine_similarity

from experiments.benchmarks.results import command_line
from experiments.study.checkpoints import trainer_for
from experiments.study.data import quiet_lightning
from experiments.study.fits import VARIANTS, Shared, fit_once
from experiments.study.intervals import gains
from experiments.study.lifts import METRICS
from experiments.study.path_table import BARE, PATHS, WITHOUT, report
from experiments.study.results import Study
from experiments.study.rows import Key, Run, key_of
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.nn.enhanced import Enhanced
from llm4sbr.nn.metrics import target_ranks
from llm4sbr.runs.saved_run import load_run
from llm4sbr.training.wrapper import LLM4SBRWrapper

TRAINED = "trained"  # the fit whose checkpoint is tested on the three paths
SETTINGS = {  # the package's defaults, and views that are hidden from the fusion at times
    "batch_size": 200, "lr": 6e-3, "lr_schedule": "cosine", "label_smoothing": 0.1, "session_dropout": 0.3,
    "score_scale": 16.0, "repeat_explore": True, "item_titles": 100, "view_dropout": 0.2, "epochs": 10,
}  # fmt: skip


def paths(
    data: str,
    out: Path,
    variant: str = "titles",
    data_dir: str | None = None,
    backbone: str = "SRGNN",
    seeds: list[int] | None = None,
    store: str = "views/beauty",
    settings: dict[str, Any] | None = None,
    json: Path | None = None,
) -> None:
    """Test wrapped models with a predictor of views with known, with predicted and without views.

    For each seed it trains a bare model, a wrapped one without a predictor, and a wrapped one with it, all
    with the same common heads. Validation chooses the epoch. The last model is then tested in one pass on
    three paths: the views as they are, all views predicted, no views. Saved fits and tests are not repeated.

    Example::

        python -m experiments paths --data experiments/data/ml-100k.yaml --store views/ml-100k
            --out experiments/results/paths-ml-100k.parquet --json experiments/results/paths-ml-100k.json

    Args:
        data: Data module YAML.
        out: Results file.
        variant: Views of the wrapped models: ``titles`` or ``llm``.
        data_dir: Folder of the data; by default that of the YAML.
        backbone: Registered name of the backbone.
        seeds: Seeds of the fits; 0, 1 and 2 by default.
        store: Folder of the view store.
        settings: Settings that differ from the package's defaults (see compare).
        json: File for the table.
    """
    quiet_lightning()
    study, chosen = Study(out), {**SETTINGS, **(settings or {})}
    shared, views = Shared(data, data_dir, store), VARIANTS[variant]
    for seed in seeds or (0, 1, 2):
        fit_once(study, shared, Key(backbone, BARE, seed), chosen, None)
        with_views = Key(backbone, variant, seed)
        fit_once(study, shared, with_views._replace(what=WITHOUT), chosen, views)
        trained = with_views._replace(what=TRAINED)
        fit_once(study, shared, trained, {**chosen, "view_predictor": True}, views, test=False)
        kept = {key_of(run): run for run in study.runs()}
        if trained in kept and not {with_views._replace(what=path) for path in PATHS} <= set(kept):
            test(study, kept[trained])
    report(study, variant, json)


class PathRecorder(Callback):
    """Records the rank of every test example on each path, and how near the predictions are."""

    def __init__(self) -> None:
        self.ranks: dict[str, list[np.ndarray]] = {path: [] for path in PATHS}
        self.cosines: list[torch.Tensor] = []
        self.known: list[torch.Tensor] = []

    def on_test_batch_end(
        self, trainer: Trainer, model: Any, outputs: object, batch: SessionBatch, *_: object
    ) -> None:
        """Score a batch on each path."""
        assert isinstance(model, LLM4SBRWrapper)
        found = views_of_paths(model, batch)
        for path, enhanced in found.items():
            ranks = target_ranks(model.score_enhanced(enhanced), batch.target)
            self.ranks[path].append(ranks.cpu().numpy())
        own, other = found["known"], found["predicted"].prediction
        assert other is not None
        if own.seen.views is not None:
            self.cosines.append(cosine_similarity(other.views, own.seen.views, dim=-1).cpu())  # (B, K)
            self.known.append(own.mask.cpu())

    def nearness(self) -> dict[str, float]:
        """Mean cosine of predicted and known views, for each view."""
        cosines, known = torch.cat(self.cosines), torch.cat(self.known)
        mean = (cosines * known).sum(0) / known.sum(0).clamp(min=1)
        return {f"cosine/{view}": round(float(value), 4) for view, value in enumerate(mean)}


def views_of_paths(model: LLM4SBRWrapper, batch: SessionBatch) -> dict[str, Enhanced]:
    """Interests and views of a batch on each path."""
    shape = len(batch.lengths), len(model.interest_of_view)
    none = {
        "views": torch.zeros(*shape, model.text_dim, device=batch.item_ids.device),
        "view_mask": torch.zeros(shape, dtype=torch.bool, device=batch.item_ids.device),
    }
    return {
        "known": model.enhance(batch, predict=False),
        "predicted": model.enhance(batch._replace(**none)),
        "absent": model.enhance(batch._replace(**none), predict=False),
    }


def test(study: Study, trained: Run) -> None:
    """Test a trained model on the three paths in one pass, and save them."""
    run, recorder, key = load_run(trained["log_dir"]), PathRecorder(), key_of(trained)
    trainer_for(run, callbacks=[recorder]).test(run.model, run.data, verbose=False)
    session = run.data.examples("test").session  # type: ignore[attr-defined]
    same = {
        name: trained[name]
        for name in ("settings", "parameters", "machine", "device", "versions", "best_epoch", "log_dir")
    }
    found = []
    for path, parts in recorder.ranks.items():
        ranks = np.concatenate(parts)
        metrics = {f"test/{metric}": round(float(gains(ranks, metric).mean()), 5) for metric in METRICS}
        found.append({
            **key._replace(what=path)._asdict(), **same, "date": date.today().isoformat(),
            "command": command_line(), "trained_by": trained["command"], "test": metrics,
            **recorder.nearness(), "ranks": ranks, "session": session,
        })  # fmt: skip
        print(f"{study.path}: {key._replace(what=path)}", metrics, flush=True)
    study.extend(found)
