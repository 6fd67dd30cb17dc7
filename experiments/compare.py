"""Train and test backbones bare and wrapped, over seeds, and keep one JSON a run.

    python experiments/compare.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --backbones srgnn --variants bare titles llm --seeds 0 1 2 \
        --store views/beauty --out experiments/results/beauty

Each run is ``llm4sbr fit`` with experiments/base.yaml, its best epoch by validation tested once. A run whose
JSON exists is not repeated, so the command resumes and can be run in pieces. The rank of every test example
goes to ``runs/``: experiments/table.py reads them for paired intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from llm4sbr.batch import SessionBatch
from llm4sbr.metrics import target_ranks
from llm4sbr.trainer_cli import run

HERE = Path(os.path.relpath(Path(__file__).parent))  # short in the commands that results carry
VARIANTS = {  # which views a run reads, and what stands where there are none
    "bare": None,
    "titles": ("titles", "mask"),
    "llm": ("llm", "mask"),
    "llm+titles": ("llm", "titles"),
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
    words += [
        "--seed_everything",
        str(seed),
        "--trainer.logger.init_args.name",
        f"{args.out.name}-{backbone}-{variant}",
    ]
    if args.data_dir:
        words += ["--data.data_dir", args.data_dir]
    if views is not None:
        words += ["--views.store", args.store, "--views.spec", views[0], "--views.fallback", views[1]]
    if args.quiet:
        words += ["--trainer.enable_progress_bar", "false"]
    return words + shlex.split(args.options)


def one_run(args: argparse.Namespace, backbone: str, variant: str, seed: int) -> None:
    """Fit, test the chosen epoch, write the JSON."""
    target = args.out / f"{backbone}-{variant}-{seed}.json"
    if target.exists():
        print(f"{target} is there already")
        return
    words = fit_options(args, backbone, variant, seed)
    began = time.perf_counter()
    cli = run(words)
    seconds = time.perf_counter() - began
    recorder, checkpoint = RankRecorder(), cli.trainer.checkpoint_callback
    cli.trainer.callbacks.append(recorder)
    with torch.random.fork_rng():
        (tested,) = cli.trainer.test(
            cli.model, cli.datamodule, ckpt_path=checkpoint.best_model_path, verbose=False, weights_only=True
        )
    log_dir = Path(cli.trainer.log_dir)
    np.save(log_dir / "test-ranks.npy", np.concatenate(recorder.ranks))
    np.save(log_dir / "test-sessions.npy", cli.datamodule.examples("test").session)
    result = {
        "backbone": backbone,
        "variant": variant,
        "seed": seed,
        "command": "llm4sbr " + shlex.join(words),
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(cli.trainer.strategy.root_device),
        "versions": {name: version(name) for name in ("llm4sbr", "torch", "lightning", "torch-geometric")},
        "epochs": cli.trainer.current_epoch,
        "best_epoch": int(Path(checkpoint.best_model_path).stem.split("-")[1]),
        "best_validation": round(float(checkpoint.best_model_score), 5),
        "fit_seconds": round(seconds, 1),
        "test": {name: round(value, 5) for name, value in tested.items()},
        "ranks": str(log_dir / "test-ranks.npy"),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(target, json.dumps(result["test"]), flush=True)


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
