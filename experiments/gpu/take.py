"""Take in what a job handed over, check it, and put its results where they belong.

    python experiments/gpu/take.py FOLDER --data_dir ../shared/data/beauty

The archive is joined, compared with its checksum and unpacked into ``.gpu/state/JOB``; pack.py packs
it for jobs that resume. Figures then go to ``experiments/results/gpu/``, fits into their study of
``experiments/results/``, views into the store ``--store``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from answers import read_answers
from place import HERE, say, unpacked, write_json

from experiments.study.data import data_module
from experiments.study.results import Study
from llm4sbr.contracts.examples import SPLITS
from llm4sbr.views.inference.sessions import session_keys
from llm4sbr.views.store import ViewStore

RESULTS = HERE.parent / "results"


def figures(args: argparse.Namespace, manifest: dict[str, Any], folder: Path, *names: str) -> None:
    """Keep a job's JSONs together, with card, date and versions."""
    parts = {
        Path(name).stem: json.loads((folder / name).read_text()) for name in names if (folder / name).exists()
    }
    write_json(args.results / "gpu" / f"{manifest['job']}.json", {**manifest, **parts})


def tests(args: argparse.Namespace, manifest: dict[str, Any], folder: Path) -> list[str]:
    """Problems, of which a test that was skipped is one."""
    found = json.loads((folder / "tests.json").read_text())
    figures(args, manifest, folder, "tests.json")
    say(f"{found['passed']} of {found['tests']} tests passed on {found['card']}")
    return [*found["failed"], *found["skipped"]]


def tune(args: argparse.Namespace, manifest: dict[str, Any], folder: Path) -> list[str]:
    """An adapter with weights, and what it brought."""
    from safetensors.numpy import load_file

    if not (folder / "adapter" / "adapter_config.json").exists():
        return ["there is no adapter yet"]
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    figures(args, manifest, folder, "estimate.json", "plan.json", "trained.json", "hits.json")
    say(f"an adapter of {sum(one.size for one in weights.values()):,} weights in {folder / 'adapter'}")
    problems = [] if all(np.isfinite(one).all() for one in weights.values()) else ["weights are not finite"]
    if not any(np.any(one) for name, one in weights.items() if "lora_B" in name):
        problems.append("the adapter has learned nothing")
    if not (folder / "hits.json").exists():
        return [*problems, "training was stopped: run the job again"]
    for one in json.loads((folder / "hits.json").read_text())["rows"]:
        if "hit@20" in one["what"]:
            say(f"{one['what']}: {one['value']} {one['unit']} ({one['note']})")
    return problems


def views(args: argparse.Namespace, manifest: dict[str, Any], folder: Path) -> list[str]:
    """Views of sessions that the data module has, in a store."""
    data = data_module(args.data, args.data_dir)
    with ViewStore(args.store) as store:
        spec = read_answers(folder / "answers.npz", data.catalogue, store)
        known = store.localised_keys(spec)
        found = store.lookup_localised(spec, sorted(known))
    figures(args, manifest, folder, "progress.json", "report.json")
    problems = []
    every: set[bytes] = set()
    for split in SPLITS:
        keys = [key for key, _ in session_keys(data, split)]  # type: ignore[arg-type]
        every |= set(keys)
        if keys:
            say(f"{split}: {np.mean([key in known for key in keys]):.1%} of the examples have views")
    if known - every:
        problems.append(f"{len(known - every)} sessions are not of this data")
    total = found.weights.astype(np.float32).sum(-1)[found.mask]
    if not found.mask.all() or not np.allclose(total, total[:1], atol=0.01):
        say(f"weights of a view sum to {total.min():.3f} … {total.max():.3f}")
    say(f"{len(known)} sessions in {args.store}, views {spec.describe()}")
    return problems


def step(args: argparse.Namespace, manifest: dict[str, Any], folder: Path) -> list[str]:
    """Cases that were measured."""
    found = json.loads((folder / "step.json").read_text())
    figures(args, manifest, folder, "step.json")
    say(f"{len(found['rows'])} rows, {len(found['left'])} cases are left")
    return [f"{one['what']}: {one['note']}" for one in found["rows"] if one["value"] < 0]


def fits(args: argparse.Namespace, manifest: dict[str, Any], folder: Path) -> list[str]:
    """Fits of the search that are not kept yet."""
    for path in sorted((folder / "results").glob("*.parquet")):
        new = Study(args.results / path.name).merge(Study(path))
        say(f"{path.stem}: {len(new)} fits are new{''.join(f', {key}' for key in new)}")
    return []


CHECKS = {"tests": tests, "tune": tune, "views": views, "step": step, "msgifsr": fits, "rows": fits}


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=str(HERE.parent / "data" / "beauty.yaml"), help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--store", type=Path, default=Path("views", "beauty"))
    parser.add_argument("--state", type=Path, default=HERE.parents[1] / ".gpu" / "state")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    status, manifests = 0, [args.folder / f"{name}.json" for name in CHECKS]
    for path in (one for one in manifests if one.exists()):
        folder = args.state / path.stem
        manifest = unpacked(path, folder)
        say(f"{manifest['job']} of {manifest['date']} on {manifest['card']}, {manifest['seconds']} s")
        if manifest["rehearsal"] and args.results == RESULTS:
            raise SystemExit("the results of a rehearsal are not kept")
        problems = CHECKS[manifest["job"]](args, manifest, folder)
        problems += [f"it ended with status {manifest['status']}"] * bool(manifest["status"])
        for one in problems:
            say(f"PROBLEM: {one}")
        status |= bool(problems)
    if not any(one.exists() for one in manifests):
        raise SystemExit(f"nothing was handed over in {args.folder}")
    return status


if __name__ == "__main__":
    sys.exit(main())
