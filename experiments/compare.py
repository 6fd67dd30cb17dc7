"""Train and test backbones bare and wrapped, over seeds, and keep one JSON a run.

    python experiments/compare.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --backbones srgnn --variants bare titles llm --seeds 0 1 2 \
        --store views/beauty --out experiments/results/beauty

Each run is ``llm4sbr fit`` with experiments/base.yaml, its best epoch by validation tested once. A run whose
JSON exists is not repeated, and one that was stopped goes on from its last checkpoint, so the command resumes
and can be run in pieces. The JSON keeps the rank of every test example (ranks.py): experiments/table.py reads
them for paired intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ranks
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from llm4sbr.batch import SessionBatch
from llm4sbr.metrics import target_ranks
from llm4sbr.report.history import read_history
from llm4sbr.resuming import resumed
from llm4sbr.trainer_cli import SBRCLI, run

HERE = Path(os.path.relpath(Path(__file__).parent))  # short in the commands that results carry
VARIANTS = {  # which views a run reads, and what stands where there are none
    "bare": None,
    "titles": ("titles", "mask"),
    "llm": ("llm", "mask"),
    "llm+titles": ("llm", "titles"),
    "no-views": (None, "mask"),  # wrapped, and never a view: what the architecture alone brings
}


class RankRecorder(Callback):
    """Keeps the rank of every test example, in example order, for paired comparisons."""

    def __init__(self) -> None:
        self.ranks: list[np.ndarray] = []

    def on_test_batch_end(
        self, trainer: Trainer, model: LightningModule, outputs: object, batch: SessionBatch, *_: object
    ) -> None:
        """Rank a batch."""
        self.ranks.append(target_ranks(model(batch), batch.target).cpu().numpy())


def fit_options(args: argparse.Namespace, backbone: str, variant: str, seed: int) -> list[str]:
    """The ``llm4sbr`` words of one run."""
    views = VARIANTS[variant]
    module = "llm4sbr.SBRModule" if views is None else "llm4sbr.LLM4SBRWrapper"
    words = ["fit", "--config", str(HERE / "base.yaml"), "--model", module]
    words += ["--data", args.data, "--model.backbone", str(HERE / "backbone" / f"{backbone}.yaml")]
    words += ["--seed_everything", str(seed)]
    if args.data_dir:
        words += ["--data.data_dir", args.data_dir]
    if views is not None:
        spec, fallback = views
        if spec is not None:
            words += ["--views.store", args.store, "--views.spec", spec, "--views.fallback", fallback]
    if args.quiet:
        words += ["--trainer.enable_progress_bar", "false"]
    return words + shlex.split(args.options)


def one_run(
    args: argparse.Namespace,
    backbone: str,
    variant: str,
    seed: int,
    options: Sequence[str] = (),
    *,
    target: Path | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Fit, test the chosen epoch unless told not to, write the JSON; what is there already is not done again.

    Args:
        args: Of `main`.
        backbone: Name of a file under ``backbone/``.
        variant: One of `VARIANTS`.
        seed: Of the run.
        options: Further words for ``llm4sbr fit``.
        target: The JSON; by default one in ``args.out`` named after the rest.
        test: False leaves the test split unread.
    """
    target = target or args.out / f"{backbone}-{variant}-{seed}.json"
    if target.exists():
        print(f"{target} is there already")
        return dict(json.loads(target.read_text()))
    words = [*fit_options(args, backbone, variant, seed), *options]
    # A folder of its own for each fit: processes side by side would count its versions at the same time.
    name = f"{args.out.name}/{target.stem}"
    words += ["--trainer.logger.init_args.name", name]
    began = time.perf_counter()
    stopped = begin(Path("runs", name), words)
    cli = run(words) if stopped is None else resumed(stopped)
    seconds = time.perf_counter() - began
    checkpoint = cli.trainer.checkpoint_callback
    tested = measure(cli) if test else {}
    result = {
        "backbone": backbone,
        "variant": variant,
        "seed": seed,
        "options": list(options),
        "command": "llm4sbr " + shlex.join(words),
        "parameters": sum(weight.numel() for weight in cli.model.parameters()),
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(cli.trainer.strategy.root_device),
        "versions": {name: version(name) for name in ("llm4sbr", "torch", "lightning", "torch-geometric")},
        "epochs": cli.trainer.current_epoch,
        "best_epoch": int(Path(checkpoint.best_model_path).stem.split("-")[1]),
        "best_validation": round(float(checkpoint.best_model_score), 5),
        "fit_seconds": round(seconds, 1),  # of the last piece
        "curve": curve(Path(cli.trainer.log_dir) / "metrics.csv"),
        "log_dir": cli.trainer.log_dir,
        **tested,
    }
    keep(target, result)
    print(target, json.dumps(result.get("test", {"validation": result["best_validation"]})), flush=True)
    return result


def begin(folder: Path, words: list[str]) -> Path | None:
    """Note what the next run in a folder is made with; the run of the same words that was stopped, if any.

    Args:
        folder: Has a ``version_N`` for each run.
        words: Of the run.
    """
    note = folder / "begun.json"
    if note.exists():
        begun = json.loads(note.read_text())
        stopped = folder / f"version_{begun['version']}"
        if begun["words"] == words and (stopped / "checkpoints" / "resume.ckpt").is_file():
            return stopped
    versions = [int(path.name.removeprefix("version_")) for path in folder.glob("version_*")]
    keep(note, {"version": max(versions, default=-1) + 1, "words": words})  # as the logger counts
    return None


def keep(target: Path, result: Any) -> None:
    """Write a result; a killed run leaves no half of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(target)


def curve(path: Path) -> list[dict[str, float]]:
    """Training loss and validation metrics of each epoch; empty without a CSV log."""
    shown = ("train/rec_loss", "train/loss", "val/recall@20", "val/mrr@20", "val/ndcg@20")
    return [{name: round(row[name], 5) for name in shown if name in row} for row in read_history(path)]


def measure(cli: SBRCLI) -> dict[str, Any]:
    """Test the chosen epoch, and keep the rank of every test example."""
    recorder = RankRecorder()
    cli.trainer.callbacks.append(recorder)
    best = cli.trainer.checkpoint_callback.best_model_path
    with torch.random.fork_rng():
        (tested,) = cli.trainer.test(
            cli.model, cli.datamodule, ckpt_path=best, verbose=False, weights_only=True
        )
    return {
        "test": {name: round(value, 5) for name, value in tested.items()},
        **ranks.pack(np.concatenate(recorder.ranks), cli.datamodule.examples("test").session),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--backbones", nargs="+", default=["srgnn"])
    parser.add_argument("--variants", nargs="+", default=["bare", "titles"], choices=sorted(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--store", default="views/beauty", help="folder that `llm4sbr views infer` wrote")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "beauty")
    parser.add_argument("--options", default="", help="further words for `llm4sbr fit`")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    for seed in args.seeds:
        for backbone in args.backbones:
            for variant in args.variants:
                one_run(args, backbone, variant, seed)


if __name__ == "__main__":
    sys.exit(main())
