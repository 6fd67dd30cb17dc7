"""Job 3: both views of every distinct prefix, constrained to the catalogue, by the adapter that job 2 left.

Several processes share the GPU, because half of the work is Python's. Each infers the views of its share
of the sessions into a store of its own. At the time limit they stop after a batch, their stores are merged,
and ``answers.npz`` has everything so far. When all sessions have views, ``report.json`` says how well the
views find the next click.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from answers import write_answers
from inference import PROMPTS, SESSIONS, KnownTitles, Setting, infer_share, prepare
from lightning.pytorch import LightningDataModule
from place import Clock, llm4sbr, parser, say, write_json
from side_by_side import STOPPED, run

from experiments.study.data import data_module
from llm4sbr.views import Selection
from llm4sbr.views.inference.plan import ViewPlan, plan_views
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import write_keys
from llm4sbr.views.store.reading import StoreReader

BLOCK = 1024  # neighbouring sessions that stay together: their prompts begin alike
RESERVE = 75  # seconds for a last batch, the merge and what is handed over


def everything(data: LightningDataModule, args: argparse.Namespace, setting: Setting) -> ViewPlan:
    """Plan the views of all distinct sessions, in the order of inference."""
    return plan_views(
        data,  # type: ignore[arg-type]
        encoder=KnownTitles(args.titles, data.catalogue),
        engine=setting.engine(data.catalogue),
        prompts=PROMPTS,
        sessions=Selection(limit=args.limit),
    )


def deal(left: list[bytes], folder: Path, processes: int) -> list[Path]:
    """Write each process's sessions, in blocks dealt in turn; returns the folders of those with any."""
    block = min(BLOCK, max(1, len(left) // processes))
    places = []
    for process in range(processes):
        mine = [key for begin in range(process * block, len(left), processes * block)
                for key in left[begin : begin + block]]  # fmt: skip
        if mine:
            places.append(folder / f"{process:02d}")
            write_keys(places[-1] / SESSIONS, mine)
    return places


def merge(store: Path, folder: Path) -> None:
    """Take the shares into the store."""
    found = sorted(str(path.parent) for path in folder.glob("*/store/views.sqlite"))
    if found:
        llm4sbr("views", "merge", "--out", str(store), "--stores", f"[{', '.join(found)}]")
    shutil.rmtree(folder, ignore_errors=True)


def known(store: Path, plan: ViewPlan) -> set[bytes]:
    """Sessions whose views are in the store."""
    with ViewStore(store) as opened:
        return opened.localised_keys(plan.spec)


def main() -> int:
    """Run it; returns the exit status."""
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="data module YAML")
    options.add_argument("--data_dir", required=True)
    options.add_argument("--titles", type=Path, required=True, help="view store with title views")
    options.add_argument("--model", required=True, help="the language model")
    options.add_argument("--adapter", help="folder of its adapter")
    options.add_argument("--processes", type=int, default=8, help="that share the GPU")
    options.add_argument("--batch", type=int, default=512, help="prompts of one call of the engine")
    options.add_argument("--batch_tokens", type=int, default=16384, help="prompt tokens of one forward pass")
    options.add_argument("--limit", type=int, help="largest number of sessions")
    args = options.parse_args()
    clock = Clock(args.minutes)
    setting = Setting(
        args.model, args.adapter, batch=args.batch, batch_tokens=args.batch_tokens, device=args.device
    )
    data, store, shares = data_module(args.data, args.data_dir), args.work / "store", args.work / "shares"
    kept = args.work / "answers.npz"
    plan = everything(data, args, setting)
    prepare(store, args.titles, kept, data.catalogue)
    with ViewStore(store) as opened:
        others = [one for one in opened.view_specs() if one.source == "llm" and one != plan.spec]
    if others:
        raise SystemExit(f"{args.work} has views of another adapter or setting: remove it to begin anew")
    merge(store, shares)  # of a job that was killed
    before = known(store, plan)
    left = [key for key in plan.chosen if key not in before]
    say(f"{len(left)} of {len(plan.chosen)} sessions have no views yet")
    sound, began = True, clock.passed
    if left:
        given = [
            (args.data, args.data_dir, one, args.titles, setting)
            for one in deal(left, shares, args.processes)
        ]
        sound = all(status in STOPPED for status in run(infer_share, given, clock.left - RESERVE))
        merge(store, shares)
    done = known(store, plan)
    seconds, inferred = clock.passed - began, len(done - before)
    rest = len(plan.chosen) - len(done & set(plan.chosen))
    rate = inferred / seconds if left else 0.0
    say(f"{inferred} sessions in {seconds:.0f} s, {rate:.1f} a second; {rest} are left"
        + (f", {rest / rate / 60:.1f} minutes" if rest and rate else ""))  # fmt: skip
    reader = StoreReader(store)
    count = write_answers(reader, plan.spec, data.catalogue, kept)
    reader.close()
    progress = {
        "sessions": len(plan.chosen),
        "known": count,
        "inferred": inferred,
        "seconds": seconds,
        "a_second": rate,
    }
    write_json(
        args.work / "progress.json", {**progress, "spec": plan.spec.fingerprint, "processes": args.processes}
    )
    if not rest:
        report = ["--data", args.data, "--data.data_dir", args.data_dir, "--store", str(store)]
        report += [
            "--spec",
            plan.spec.fingerprint,
            "--samples",
            "0",
            "--json",
            str(args.work / "report.json"),
        ]
        llm4sbr("views", "report", *report)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
