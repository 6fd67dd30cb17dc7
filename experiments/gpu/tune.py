"""Job 2: tune the language model on all training clicks, within the time limit.

The long-term view learns any later click, the short-term view the next one. A hundred timed steps show how
many steps fit into the time; the learning rate falls over exactly those. The adapter with the best
validation loss is kept after each validation. ``hits.json`` compares the views of the same validation
sessions before and after.

The folder has ``adapter/``, ``estimate.json``, ``plan.json``, ``hits.json`` and ``run/``, from which training
resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from inference import MAX_TITLE_CHARS, Setting, infer
from place import Clock, device_words, llm4sbr, parser, say, write_json

from experiments.study.data import data_module
from experiments.study.views import views as compare_views
from llm4sbr.views import Selection

VALIDATIONS = 8  # over the whole training


def words(args: argparse.Namespace, steps: int, seconds: float, times: Path) -> list[str]:
    """Return the words of `llm4sbr tune-llm` for a number of steps and a time limit."""
    given = ["tune-llm", "--data", args.data, "--data.data_dir", args.data_dir]
    given += ["--prompts.templates", "later", "--prompts.max_title_chars", str(MAX_TITLE_CHARS)]
    given += ["--model.model", args.model, "--model.lora.rank", str(args.rank)]
    given += ["--model.learning_rate", str(args.learning_rate), "--model.lora.dropout", "0"]
    given += ["--texts.prefixes", "256", "--texts.batch_size", str(args.sessions)]  # whole sessions
    given += ["--texts.num_workers", str(args.workers)]
    given += ["--texts.val_limit", str(args.val_limit), *device_words(args.device)]
    given += ["--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_val", "1.0"]
    given += ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)]
    given += ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    given += ["--trainer.callbacks+", "stopwatch.Stopwatch", "--trainer.callbacks.path", str(times)]
    return [*given, "--trainer.callbacks.seconds", f"{seconds:.0f}"]


def estimate(args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Measure the seconds per step with steps that are not kept."""
    path = args.work / "estimate.json"
    if not path.exists():
        probe = ["--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0"]
        probe += [
            "--out",
            str(args.work / "probe"),
            "--trainer.default_root_dir",
            str(args.work / "probe-run"),
        ]
        llm4sbr(*words(args, args.probe, clock.left / 3, path), *probe)
    times: dict[str, Any] = json.loads(path.read_text())
    if times["seconds_a_step"] is None:
        path.unlink()
        raise SystemExit("there was no time for two steps")
    step, epoch = times["seconds_a_step"], times["steps_an_epoch"]
    say(f"{step:.3f} s a step, {epoch} steps an epoch: {step * epoch / 60:.1f} minutes an epoch")
    return times


def plan(args: argparse.Namespace, times: dict[str, Any], seconds: float) -> int:
    """Return the number of steps of the whole training, decided once."""
    path = args.work / "plan.json"
    if not path.exists():
        fit = int(seconds / times["seconds_a_step"] * 0.85)  # the rest is validation
        steps = min(round(args.epochs * times["steps_an_epoch"]), fit, args.most_steps or fit)
        write_json(path, {"steps": max(1, steps), "epochs": steps / times["steps_an_epoch"]})
    found = json.loads(path.read_text())
    say(f"{found['steps']} steps in all, {found['epochs']:.2f} epochs; {seconds:.0f} s are left for them")
    return int(found["steps"])


def train(args: argparse.Namespace, steps: int, seconds: float) -> None:
    """Train or resume; the best adapter is in ``adapter/`` after the first validation."""
    done, run = args.work / "trained.json", args.work / "run"
    if done.exists() and json.loads(done.read_text())["step"] >= steps:
        return
    every = ["--trainer.val_check_interval", str(max(1, steps // VALIDATIONS))]
    every += ["--trainer.check_val_every_n_epoch", "null", "--trainer.num_sanity_val_steps", "0"]
    places = ["--out", str(args.work / "adapter"), "--trainer.default_root_dir", str(run)]
    last = run / "checkpoints" / "last.ckpt"
    again = ["--ckpt_path", str(last)] if last.exists() else []
    llm4sbr(*words(args, steps, seconds, done), *every, *places, *again)


def main() -> int:
    """Run it; returns the exit status."""
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="data module YAML")
    options.add_argument("--data_dir", required=True)
    options.add_argument("--titles", type=Path, required=True, help="view store with title views")
    options.add_argument("--model", required=True, help="the language model")
    options.add_argument("--sessions", type=int, default=8, help="whole sessions in a step")
    options.add_argument("--rank", type=int, default=8)
    options.add_argument("--learning_rate", type=float, default=1e-3)
    options.add_argument("--epochs", type=float, default=2, help="at most")
    options.add_argument("--probe", type=int, default=100, help="steps that are timed")
    options.add_argument(
        "--validation", type=int, default=800, help="validation sessions measured before and after"
    )
    options.add_argument("--val_limit", type=int, default=2000, help="validation clicks of the loss")
    options.add_argument("--workers", type=int, default=8, help="processes that write prompts")
    options.add_argument("--most_steps", type=int)
    args = options.parse_args()
    clock = Clock(args.minutes)
    data = data_module(args.data, args.data_dir)
    setting = Setting(args.model, device=args.device)
    sample, store = Selection(splits=("validate",), limit=args.validation), args.work / "store"
    _, before = infer(data, store, args.titles, setting, sample)
    inference = clock.passed
    say(f"{inference:.0f} s to load and to infer the views of {args.validation} sessions")
    times = estimate(args, clock)
    left = clock.left - 1.5 * inference
    train(args, plan(args, times, left), left)
    tuned = setting._replace(adapter=str(args.work / "adapter"))
    _, after = infer(data, store, args.titles, tuned, sample)
    specs = {"tuned": after.fingerprint, "untuned": before.fingerprint}
    compare_views(args.data, str(store), specs, args.data_dir, json=args.work / "hits.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
