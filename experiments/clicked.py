"""What trained models lose to items that the session has clicked already, on validation examples.

    python experiments/clicked.py experiments/results/protocol-beauty-one-seed --json clicked.json

FOLDER is what protocol.py or compare.py wrote. The run of each result, as long as its checkpoint is there, is
validated twice in one pass: as it is, and with the session's own items barred from the list. Where nobody
clicks twice the difference is what a model wastes on them; where people do, what they are worth. Nothing is
trained and the test split is not read. ``--model.repeat_explore`` is the head that learns which it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import warnings
from pathlib import Path
from typing import Any

from compare import keep
from lightning.pytorch import LightningModule
from torch import Tensor
from with_rules import trainer_for

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.nn.metrics import SessionRanking
from llm4sbr.runs.saved_run import load_run

SHOWN = ("recall@5", "recall@20", "mrr@20")


def barred(scores: Tensor, batch: SessionBatch) -> Tensor:
    """The scores ``(B, V)`` with the items of each session below all others."""
    columns = batch.item_ids.where(batch.item_ids > 0, batch.item_ids[:, :1]) - 1  # padding: the first click
    return scores.scatter(1, columns, -math.inf)


def measure(log_dir: str) -> dict[str, Any]:
    """Validation metrics of a run, the session's own items kept and barred, and how many targets repeat."""
    run = load_run(log_dir)
    found = {"kept": SessionRanking(), "barred": SessionRanking()}
    repeats = examples = 0

    def watch(model: LightningModule, batches: tuple[SessionBatch], scores: Tensor) -> None:
        nonlocal repeats, examples
        (batch,) = batches
        found["kept"].update(scores, batch.target)
        found["barred"].update(barred(scores, batch), batch.target)
        repeats += int((batch.item_ids == batch.target.unsqueeze(1)).any(1).sum())
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
    return {"examples": examples, "repeated_targets": repeats, **metrics}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path, help="what was measured joins what this file holds")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning.pytorch")  # few workers, no logger: both meant
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    gone = []
    print("| model | " + " | ".join(SHOWN) + " | targets that repeat |")
    print("|---|" + "---|" * (len(SHOWN) + 1))
    for path in [path for folder in args.folders for path in sorted(folder.glob("*-*-*.json"))]:
        result = json.loads(path.read_text())
        if not list(Path(result["log_dir"]).glob("checkpoints/best*.ckpt")):
            gone.append(path.stem)
            continue
        row = rows[f"{path.parent.name}/{path.stem}"] = measure(result["log_dir"])
        cells = [f"{100 * row['kept'][name]:.2f} → {100 * row['barred'][name]:.2f}" for name in SHOWN]
        print(
            f"| {path.stem} | "
            + " | ".join(cells)
            + f" | {row['repeated_targets']:,} of {row['examples']:,} |"
        )
        if args.json:
            keep(args.json, rows)
    if gone:
        print(f"no checkpoint is left of {', '.join(gone)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
