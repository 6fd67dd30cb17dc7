"""Jobs 5 and 6: fits of the search, several side by side on one GPU.

The job starts ``python -m experiments search`` in several processes, which share the fits. When the time is
up, each process saves and stops; a stopped fit resumes from its last checkpoint. Fits that the checkout
already has are not computed again. Every further option is one of the search.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from inference import prepare
from place import HERE, Clock, parser, say
from side_by_side import PATIENCE, STOPPED, command, run

from experiments.study.data import data_module
from experiments.study.results import Study


def main() -> int:
    """Run it; returns the exit status."""
    options = parser(__doc__)
    options.add_argument("--processes", type=int, default=8)
    options.add_argument("--data", required=True, help="data module YAML")
    options.add_argument(
        "--results", default="protocol-beauty", help="study of experiments/results to continue"
    )
    options.add_argument("--data_dir")
    options.add_argument("--store", type=Path, required=True, help="view store")
    options.add_argument("--answers", type=Path, help="LLM views of job 3, for a store not yet there")
    options.add_argument("--titles", type=Path, help="view store with title views, likewise")
    options.add_argument("--settings", type=yaml.safe_load, default={}, help="settings of every fit")
    args, words = options.parse_known_args()
    clock, study = Clock(args.minutes), Study(args.work / "results" / args.results)
    known = Study(HERE.parent / "results" / args.results)
    if known.exists():
        study.merge(known)
    if args.answers is not None:
        prepare(args.store, args.titles, args.answers, data_module(args.data, args.data_dir).catalogue)
    before = study.kept()
    settings: dict[str, Any] = {
        **args.settings, "trainer.accelerator": "gpu" if args.device == "cuda" else "cpu"
    }  # fmt: skip
    words = ["search", "--data", args.data, "--store", str(args.store), "--out", str(study.path), *words]
    words += ["--settings", yaml.safe_dump(settings, default_flow_style=True).strip()]
    words += ["--data_dir", args.data_dir] if args.data_dir else []
    logs = [args.work / f"process-{number}.log" for number in range(args.processes)]
    found = run(command, [(words, str(log)) for log in logs], clock.left - PATIENCE)
    for key in sorted(study.kept() - before, key=str):
        say(str(key))
    say(logs[0].read_text().strip().rpartition("\n")[2])
    broken = [log for log, status in zip(logs, found, strict=True) if status not in STOPPED]
    for log in broken[:1]:
        say(log.read_text()[-3000:])
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
