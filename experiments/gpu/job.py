"""Run one of the jobs of jobs.yaml for a few minutes, and hand over what it leaves.

    bash experiments/gpu/job.sh tune --out OUT

A job checks that it has what it needs, resumes where it stopped and ends after ``--minutes``. It writes
``OUT/tune.json`` with ``OUT/tune.tar.xz.00`` and further pieces, which ``take.py OUT`` takes in.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import yaml
from place import HERE, Clock, card, hand_over, say, stale

JOBS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "jobs.yaml").read_text())


def flat(words: list[Any], root: Path) -> list[str]:
    """The words of a job, nested lists joined, with the root filled in.

    >>> flat([["--a", "{root}/b"], 3], Path("/r"))
    ['--a', '/r/b', '3']
    """
    found: list[str] = []
    for word in words:
        found += flat(word, root) if isinstance(word, list) else [str(word).replace("{root}", str(root))]
    return found


def lacking(name: str, root: Path, device: str) -> list[str]:
    """What a job needs and does not find."""
    found = [str(root / one) for one in JOBS[name]["needs"] if not (root / one).exists()]
    if device == "cuda" and not torch.cuda.is_available():
        found.append("a GPU")
    return found


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("job", choices=list(JOBS))
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("GPU_ROOT", "/tmp/llm4sbr-gpu")))
    parser.add_argument("--out", type=Path, required=True, help="folder of what is handed over")
    parser.add_argument("--minutes", type=float, default=7.0, help="stop in good order after that time")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rehearsal", action="store_true", help="the same with small sizes")
    args, further = parser.parse_known_args()
    clock, job, root = Clock(args.minutes), JOBS[args.job], args.root.resolve()
    if missing := lacking(args.job, root, args.device):
        say(f"{args.job} lacks: {', '.join(missing)}")
        return 2
    if changed := stale(HERE.parents[1]):
        say(f"the packed package is not that of this checkout, pack again: {', '.join(changed[:5])}")
        return 2
    work = root / "work" / args.job
    work.mkdir(parents=True, exist_ok=True)
    # For processes that a job starts: the scripts find each other.
    found = [str(HERE), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(found).rstrip(os.pathsep)
    words = flat(job["words"], root) + (flat(job["rehearsal"], root) if args.rehearsal else []) + further
    words = ["--work", str(work), "--minutes", str(args.minutes), "--device", args.device, *words]
    say(f"{args.job} on {card()}: {job['script']} {' '.join(words)}")
    sys.argv, status = [str(HERE / job["script"]), *words], 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if status:
            say(f"{args.job} failed: {ended}")
    except Exception:  # what was reached is handed over all the same
        traceback.print_exc()
        status = 1
    note = {"status": status, "seconds": round(clock.passed, 1), "words": words, "rehearsal": args.rehearsal}
    for path in hand_over(args.job, work, job["keep"], args.out, note):
        say(f"{path} {path.stat().st_size / 2**20:.1f} MiB")
    say(json.dumps(note))
    return status


if __name__ == "__main__":
    sys.exit(main())
