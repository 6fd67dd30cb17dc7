"""Test trained models with sequential rules beside them, at the weight that validation chooses.

    python experiments/with_rules.py experiments/results/protocol-beauty \
        --out experiments/results/protocol-beauty-rules

FOLDER is what protocol.py or compare.py wrote. Nothing is trained: the run of each result, as long as its
checkpoint is there, is validated once for all weights (`--model.rules`), and tested once with the best by
NDCG@20. The JSONs have the form of the others; the backbones are named ``sasrec+rules``. So ``table.py OUT``
has the lifts of wrapped over bare with rules beside both, and ``table.py FOLDER OUT --over-plain`` those
over a model without. A result whose JSON exists is not repeated.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import ranks
from compare import RankRecorder, keep
from lightning.pytorch import Trainer
from table import RULES
from torch import Tensor

from llm4sbr.callbacks import ViewCache
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.heads import SequentialRules
from llm4sbr.nn.metrics import SessionRanking
from llm4sbr.runs.saved_run import SavedRun, load_run
from llm4sbr.training.sbr_module import SBRModule

CHOSEN_BY = "ndcg@20"


def trainer_for(run: SavedRun, **options: Any) -> Trainer:
    """A Trainer that measures a run with the views it was trained with."""
    views = {name: value for name, value in (run.config.get("views") or {}).items() if value is not None}
    options["callbacks"] = [ViewCache(**views), *options.get("callbacks", ())]
    idle = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **idle, **options)


def validated(run: SavedRun, rules: SequentialRules, weights: list[float]) -> list[dict[str, float]]:
    """Validation metrics with every weight, from one pass."""
    found = [SessionRanking() for _ in weights]

    def measure(model: SBRModule, batches: tuple[SessionBatch], scores: Tensor) -> None:
        (batch,) = batches
        shares = rules.log_shares(batch)
        for weight, metric in zip(weights, found, strict=True):
            metric.update(scores + weight * shares, batch.target)

    watch = run.model.register_forward_hook(measure)
    try:
        trainer_for(run, num_sanity_val_steps=0).validate(run.model, run.data, verbose=False)
    finally:
        watch.remove()
    return [{name: round(float(value), 5) for name, value in one.compute().items()} for one in found]


def tested(run: SavedRun) -> dict[str, Any]:
    """Test metrics and ranks."""
    recorder = RankRecorder()
    (measured,) = trainer_for(run, callbacks=[recorder]).test(run.model, run.data, verbose=False)
    sessions = run.data.examples("test").session  # type: ignore[attr-defined]
    return {
        "test": {name: round(float(value), 5) for name, value in measured.items()},
        **ranks.pack(np.concatenate(recorder.ranks), sessions),
    }


def one_result(path: Path, weights: list[float], target: Path) -> None:
    """Choose the weight of one result's model, test it, write the JSON."""
    result = json.loads(path.read_text())
    run = load_run(result["log_dir"])
    if run.model.rules is not None:
        raise InputError("this model has sequential rules already", path=path)
    run.data.prepare_data()
    rules = SequentialRules(run.model.backbone.num_items, weight=1.0)
    rules.read_training_sessions(run.data.examples("train"))  # type: ignore[attr-defined]
    found = validated(run, rules, weights)
    best = max(range(len(weights)), key=lambda n: found[n][CHOSEN_BY])
    rules.weight = weights[best]
    run.model.rules = rules if rules.weight else None
    kept = {name: value for name, value in result.items() if name not in ("test", "curve", "options")}
    kept |= {
        "backbone": result["backbone"] + RULES,
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "trained_by": result["command"],
        "best_validation": found[best][CHOSEN_BY],
        "rules": weights[best],
        "weights": [{"rules": weight, **one} for weight, one in zip(weights, found, strict=True)],
        **tested(run),
    }
    keep(target, kept)
    print(target, weights[best], json.dumps(kept["test"]), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning.pytorch")  # few workers, no logger: both meant
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    gone = []
    for path in sorted(args.folder.glob("*-*-*.json")):
        target = args.out / path.name
        if target.exists():
            print(f"{target} is there already")
        elif list(Path(json.loads(path.read_text())["log_dir"]).glob("checkpoints/best*.ckpt")):
            one_result(path, args.weights, target)
        else:
            gone.append(path.stem)
    if gone:
        print(f"no checkpoint is left of {', '.join(gone)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
