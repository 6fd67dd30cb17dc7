"""Vary a tuned model one thing at a time, and compare by validation; the test split is not read.

    python experiments/ablations.py --data experiments/data/beauty-core.yaml \
        --tuned experiments/results/protocol-beauty-core --variant llm --store views/core --seeds 0 1 2 \
        --out experiments/results/ablations-beauty-core

The model is the best trial that protocol.py left for this backbone and variant; the variations are the
lines of ablations.yaml, and one more for each ``--r R=FINGERPRINT``, views localised with another r. For a
bare model give ``--variant bare --file experiments/ablations-training.yaml``, which sets nothing of the
wrapper's. Every fit leaves one JSON, so the command resumes; ``--minutes`` starts no fit after that time.
The table shows the chosen epoch's validation metrics, and the mean difference to the tuned model over the
seeds that both have, ± its standard error.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import compare
import yaml
from benchmarks.results import write

METRICS = ("val/ndcg@20", "val/mrr@20", "val/recall@20")
TUNED = "tuned"


def best_trial(folder: Path, backbone: str, variant: str) -> list[str]:
    """Words of the protocol's best trial by validation, without its number of epochs."""
    paths = sorted(folder.glob(f"trials/{backbone}-{variant}-*.json"))
    trials = [json.loads(path.read_text()) for path in paths]
    if not trials:
        raise SystemExit(f"{folder}: no trials of {backbone}-{variant}; run experiments/protocol.py first")
    words = list(max(trials, key=lambda one: one["best_validation"])["options"])
    epochs = words.index("--trainer.max_epochs")
    return words[:epochs] + words[epochs + 2 :]


def variations(args: argparse.Namespace) -> dict[str, list[str]]:
    """Words that each variation adds; the tuned model first."""
    named = {name: shlex.split(words) for name, words in yaml.safe_load(args.file.read_text()).items()}
    for given in args.r:
        r, spec = given.split("=")
        named[f"r = {r}"] = ["--views.spec", spec]
    if args.only:
        named = {name: words for name, words in named.items() if any(part in name for part in args.only)}
    return {TUNED: [], **named}


def options(args: argparse.Namespace, words: list[str]) -> list[str]:
    """What a variation adds to the words that all fits share."""
    return [*args.base, "--trainer.max_epochs", str(args.epochs), *words]


def place(args: argparse.Namespace, name: str, seed: int) -> Path:
    """The JSON of a fit; of the tuned model the protocol's own, where it ran the same fit."""
    kept = args.tuned / f"{args.backbone}-{args.variant}-{seed}.json"
    if name == TUNED and kept.exists() and json.loads(kept.read_text())["options"] == options(args, []):
        return Path(kept)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("τ", "tau")).strip("-")
    return Path(args.out / f"{args.backbone}-{args.variant}-{slug}-{seed}.json")


def chosen_epoch(path: Path) -> dict[str, float]:
    """Validation metrics, in %, of the epoch that validation chose."""
    result = json.loads(path.read_text())
    epoch = result["curve"][result["best_epoch"]]
    return {metric: 100 * epoch[metric] for metric in METRICS}


def rows(args: argparse.Namespace, names: list[str]) -> list[dict]:
    """One row for each variation with a result."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name in names:
        paths = {seed: place(args, name, seed) for seed in args.seeds}
        found[name] = {seed: chosen_epoch(path) for seed, path in paths.items() if path.exists()}
    table = []
    for name, by_seed in found.items():
        if not by_seed:
            continue
        row: dict = {"what": name, "seeds": sorted(by_seed)}
        for metric in METRICS:
            row[metric] = round(mean(one[metric] for one in by_seed.values()), 3)
            shared = [by_seed[s][metric] - found[TUNED][s][metric] for s in by_seed if s in found[TUNED]]
            if name != TUNED and shared:
                row[f"{metric} difference"] = round(mean(shared), 3)
                error = stdev(shared) / len(shared) ** 0.5 if len(shared) > 1 else None
                row[f"{metric} standard error"] = None if error is None else round(error, 3)
        table.append(row)
    return table


def tell(row: dict, metric: str) -> str:
    """A difference in words."""
    if f"{metric} difference" not in row:
        return "–"
    error = row[f"{metric} standard error"]
    return f"{row[f'{metric} difference']:+.2f}" + ("" if error is None else f" ± {error:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--tuned", type=Path, required=True, help="folder that protocol.py wrote")
    parser.add_argument("--backbone", default="srgnn")
    parser.add_argument("--variant", default="titles", choices=sorted(compare.VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--file", type=Path, default=compare.HERE / "ablations.yaml")
    parser.add_argument("--r", nargs="*", default=[], metavar="R=FINGERPRINT", help="views of another r")
    parser.add_argument("--only", nargs="*", help="variations whose name holds one of these")
    parser.add_argument("--store", default="views/beauty", help="folder that `llm4sbr views infer` wrote")
    parser.add_argument("--epochs", type=int, default=10, help="of a fit, at most")
    parser.add_argument("--out", type=Path, default=compare.HERE / "results" / "ablations")
    parser.add_argument("--options", default="", help="further words for every `llm4sbr fit`")
    parser.add_argument("--minutes", type=float, help="start no fit after that time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    args.base = best_trial(args.tuned, args.backbone, args.variant)
    named = variations(args)
    began = time.monotonic()
    for seed in args.seeds:
        for name, words in named.items():
            target = place(args, name, seed)
            if target.exists() or (args.minutes is not None and time.monotonic() - began > 60 * args.minutes):
                continue
            chosen = options(args, words)
            compare.one_run(args, args.backbone, args.variant, seed, chosen, target=target, test=False)
    table = rows(args, list(named))
    told = [name.removeprefix("val/") for name in METRICS]
    print("| variation | seeds | " + " | ".join(f"{name} | difference" for name in told) + " |")
    print("|---|---|" + "---|---|" * len(METRICS))
    for row in table:
        cells = [cell for metric in METRICS for cell in (f"{row[metric]:.2f}", tell(row, metric))]
        print("| " + " | ".join([row["what"], str(len(row["seeds"])), *cells]) + " |")
    if args.json:
        flat = [
            {"what": f"{row['what']}: {metric}", "value": row[metric], "unit": "%", "note": tell(row, metric)}
            for row in table
            for metric in METRICS
        ]
        write(args.json.stem, flat, args.json, details=table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
