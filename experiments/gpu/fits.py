"""Jobs 5 and 6: fits of the protocol, several side by side on one GPU.

The job starts ``experiments/protocol.py`` in several processes, which share the fits. When the time is up,
each process saves and stops; a stopped fit goes on from its last checkpoint. Results that the checkout has
already are not computed again. Every further option is one of protocol.py's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import protocol
from asking import prepare
from compare_views import data_module
from place import HERE, Clock, parser, say
from side_by_side import PATIENCE, STOPPED, run, script


def begin(out: Path, known: Path) -> None:
    """Results and trials that are known already, and the search space that they came from."""
    for path in known.rglob("*"):
        target = out / path.relative_to(known)
        if path.suffix in (".json", ".yaml") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--processes", type=int, default=8)
    options.add_argument("--data", required=True, help="data module YAML")
    options.add_argument(
        "--results", default="protocol-beauty", help="folder of experiments/results to go on from"
    )
    options.add_argument("--data_dir")
    options.add_argument("--store", type=Path, required=True, help="view store")
    options.add_argument("--answers", type=Path, help="LLM views of job 3, for a store not yet there")
    options.add_argument("--titles", type=Path, help="view store with title views, likewise")
    options.add_argument("--options", default="", help="further words for every `llm4sbr fit`")
    args, words = options.parse_known_args()
    clock, out = Clock(args.minutes), args.work / "results" / args.results
    begin(out, HERE.parent / "results" / args.results)
    if args.answers is not None:
        prepare(args.store, args.titles, args.answers, data_module(args.data, args.data_dir).catalogue)
    before = set(out.rglob("*.json"))
    words += ["--data", args.data, "--store", str(args.store), "--out", str(out), "--quiet"]
    words += ["--data_dir", args.data_dir] if args.data_dir else []
    words += [
        "--options",
        f"{args.options} --trainer.accelerator {'gpu' if args.device == 'cuda' else 'cpu'}",
    ]
    logs = [args.work / f"process-{number}.log" for number in range(args.processes)]
    given = [(str(protocol.__file__), words, str(log)) for log in logs]
    found = run(script, given, clock.left - PATIENCE)
    made = sorted(set(out.rglob("*.json")) - before)
    for path in made:
        say(str(path.relative_to(out)))
    say(logs[0].read_text().strip().rpartition("\n")[2])
    broken = [log for log, status in zip(logs, found, strict=True) if status not in STOPPED]
    for log in broken[:1]:
        say(log.read_text()[-3000:])
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
