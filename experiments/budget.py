"""What it brings to ask the LLM about a share of the sessions: those of which a bare model is least certain.

    python experiments/budget.py --run runs/beauty-srgnn-bare/version_0 --store views/beauty \
        --shares 0 0.1 0.3 1 --seeds 0 1 2 --json experiments/results/budget.json

The store holds LLM views of as many sessions as there are. For each share one ``llm4sbr fit`` of the wrapped
model uses those of the chosen sessions and title views elsewhere; data and splits are the bare run's. With
``--choose entropy random`` as many sessions drawn by chance are the control. The runs are compare.py's, one
JSON each and none repeated, so the command resumes. Lifts are paired with share 0, titles everywhere.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import compare
import table
import yaml
from benchmarks.results import keep, row

from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.runs.budget import bare_model, how_many, in_proportion, order_of_need
from llm4sbr.runs.saved_run import load_run
from llm4sbr.views.inference.sessions import session_keys
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys, write_keys

SPLITS: tuple[Split, ...] = ("train", "validate", "test")


def order(choice: str, run: Path, source: ExampleSource) -> list[bytes]:
    """All sessions in the order in which a budget takes them."""
    if choice == "random":  # content keys are hashes, so their own order is a draw
        return in_proportion([sorted(dict(session_keys(source, split))) for split in SPLITS])
    return order_of_need(source, bare_model(run, source), SPLITS, progress=True)


def one_variant(args: argparse.Namespace, name: str, keys: list[bytes]) -> None:
    """The runs of one set of sessions, over seeds."""
    file = args.work / f"{name}.keys"
    if file.exists() and read_keys(file) != keys:
        sys.exit(f"{file} is of another bare run or other data: give another --out, or remove it")
    write_keys(file, keys)
    compare.VARIANTS[name] = (args.spec, "titles")
    one = argparse.Namespace(**vars(args))
    one.options = f"{args.options} --views.only {shlex.quote(str(file))}"
    for seed in args.seeds:
        compare.one_run(one, args.backbone, name, seed)


def tell(
    args: argparse.Namespace, name: str, keys: list[bytes], total: int, source: ExampleSource
) -> list[dict]:
    """The rows of one variant."""
    runs = {}
    for variant in (name, "entropy-0"):
        paths = {seed: args.out / f"{args.backbone}-{variant}-{seed}.json" for seed in args.seeds}
        runs[variant] = {seed: json.loads(p.read_text()) for seed, p in paths.items() if p.exists()}
    with ViewStore(args.store) as store:
        coverage = load_view_table(store, source, args.spec, only=keys).coverage
    covered = ", ".join(f"{coverage[split]:.1%} of {split}" for split in SPLITS if split in coverage)
    note = f"{len(keys)} of {total} distinct sessions asked, views of {covered}; seeds {args.seeds}"
    rows = []
    for metric in table.METRICS:
        values = [run["test"][f"test/{metric}"] for run in runs[name].values()]
        rows.append(row(f"{name} %: {metric}", 100 * sum(values) / len(values), "%", note=note))
        found = None if name == "entropy-0" else table.lift(runs["entropy-0"], runs[name], metric)
        if found is not None:
            text = f"95 % interval {found['interval']}; {note}"
            rows.append(
                row(f"{name} %: lift of {metric} over titles", found["relative"], "relative", note=text)
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the bare run, or its checkpoint")
    parser.add_argument("--store", default="views/beauty", help="folder that `llm4sbr views infer` wrote")
    parser.add_argument("--spec", default="llm", help="which of its views: `llm`, or a fingerprint")
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.1, 0.3, 1])
    parser.add_argument("--choose", nargs="+", choices=("entropy", "random"), default=["entropy"])
    parser.add_argument("--backbone", default="srgnn")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=compare.HERE / "results" / "budget")
    parser.add_argument("--json", type=Path, help="all rows in the form of our benchmarks")
    parser.add_argument("--options", default="", help="further words for `llm4sbr fit`")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    saved = load_run(args.run)
    args.work = Path("runs") / f"{args.out.name}-sessions"
    args.work.mkdir(parents=True, exist_ok=True)
    args.data, args.data_dir = str(args.work / "data.yaml"), None
    Path(args.data).write_text(yaml.safe_dump(saved.config["data"]))
    rows: list[dict] = []
    for choice in args.choose:
        sessions = order(choice, args.run, saved.data)
        for share in sorted(args.shares):
            if choice == "random" and share in (0, 1) and "entropy" in args.choose:
                continue  # nobody and everybody are the same sessions, however chosen
            keys = sessions[: how_many(float(share), len(sessions))]
            name = f"{choice}-{100 * share:g}"
            one_variant(args, name, keys)
            rows += tell(args, name, keys, len(sessions), saved.data)
    keep("budget", rows, args.json, device="see the JSON of each run")


if __name__ == "__main__":
    sys.exit(main())
