"""Tune bare and wrapped models alike, choose by validation, test over seeds once: one command.

    python experiments/protocol.py --data experiments/data/beauty.yaml --data_dir ../shared/data/beauty \
        --backbones srgnn gru4rec --variants bare titles --trials 8 --seeds 0 1 2 \
        --out experiments/results/protocol-beauty --minutes 120

For each backbone and variant: ``--trials`` fits, whose settings come from search.yaml, at a seed of their own
and without a look at the test split; then the settings that are best by validation NDCG@20 run once for each
seed and are tested. Bare and wrapped get as many trials, each with the same draw of what both have. With
``--trials 1`` there is nothing to choose: the space's first settings are tested at once. A copy of the search
space stays in OUT.

Every fit leaves one JSON, so the command resumes where it was stopped and can be run in pieces: ``--minutes``
starts no fit after that time. The same command in several processes shares the fits among them, which is how
to use several cores, or fill a GPU. A backbone is brought to its end before the next begins: what is there at
any time makes a table of whole rows, ``python experiments/table.py OUT``. What all of it costs on a machine,
cost.py measures beforehand.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import compare
import yaml
from filelock import BaseFileLock, FileLock, Timeout

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.registry import BACKBONES, load_plugins

TUNING_SEED = 1000  # of all trials; no seed that is tested
POLL = 5  # seconds between looks at what other processes have finished
Space = dict[str, Any]  # search.yaml: values of each word under `common` and `wrapped`, settings in `starts`


class Fit(NamedTuple):
    """One fit of the protocol."""

    backbone: str
    variant: str
    trial: int | None  # None: the chosen settings, tested
    seed: int


def draw(space: Space, trial: int, *, wrapped: bool, own_scores: bool = False) -> dict[str, Any]:
    """Settings of a trial: the first values for trial 0, then the starts, then drawn by the trial's number.

    What a start leaves open stays at its first value; a bare model takes a start's common part.

    >>> space = {"common": {"--model.lr": [1, 2, 3]}, "wrapped": {"--model.tau": [4, 5, 6]}}
    >>> draw(space, 0, wrapped=True)
    {'--model.lr': 1, '--model.tau': 4}
    >>> all(draw(space, n, wrapped=True) | draw(space, n, wrapped=False) == draw(space, n, wrapped=True)
    ...     for n in range(20))
    True
    >>> draw({**space, "starts": [{"--model.lr": 9, "--model.tau": 8}]}, 1, wrapped=False)
    {'--model.lr': 9}
    """
    settings = {}
    starts = [{}, *space.get("starts", ())]
    for part in ("common", "wrapped") if wrapped else ("common",):
        dice = random.Random(f"{part} {trial}")
        for name, values in space.get(part, {}).items():
            if trial < len(starts):
                settings[name] = starts[trial].get(name, values[0])
            else:
                settings[name] = dice.choice(values)
    if own_scores:
        settings.pop("--model.score_scale", None)
    return settings


def search_space(args: argparse.Namespace) -> Space:
    """The search space; a copy stays beside the results that it made."""
    kept = args.out / "search.yaml"
    path = args.space or (kept if kept.exists() else compare.HERE / "search.yaml")
    text = path.read_text()
    space: Space = yaml.safe_load(text)
    check(space)
    if not kept.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    return space


def check(space: Space) -> None:
    """Refuse a start that sets what the space does not hold: bare and wrapped would not search the same."""
    known = {*space.get("common", {}), *space.get("wrapped", {})}
    for start in space.get("starts", ()):
        if unknown := sorted(set(start) - known):
            raise InputError("a start sets what is not in the search space", value=unknown)


def words(settings: dict[str, Any]) -> list[str]:
    """Settings as words for the command line; null leaves a setting out."""
    return [word for name, value in settings.items() if value is not None for word in (name, str(value))]


def plan(args: argparse.Namespace) -> Iterator[Fit]:
    """All fits, a backbone at a time: the trials of its variants, then the seeds."""
    for backbone in args.backbones:
        for trial in numbers_of_trials(args):
            yield from (Fit(backbone, variant, trial, TUNING_SEED) for variant in args.variants)
        for seed in args.seeds:
            yield from (Fit(backbone, variant, None, seed) for variant in args.variants)


def place(args: argparse.Namespace, fit: Fit) -> Path:
    """The JSON of a fit."""
    if fit.trial is None:
        return Path(args.out / f"{fit.backbone}-{fit.variant}-{fit.seed}.json")
    return Path(args.out / "trials" / f"{fit.backbone}-{fit.variant}-{fit.trial:02d}.json")


def numbers_of_trials(args: argparse.Namespace) -> range:
    """The trials that are run; one alone leaves nothing to choose."""
    return range(args.trials if args.trials > 1 else 0)


def trials_of(args: argparse.Namespace, fit: Fit) -> list[Path]:
    """The JSONs of the trials that a fit's model is chosen from."""
    return [place(args, fit._replace(trial=n, seed=TUNING_SEED)) for n in numbers_of_trials(args)]


def settings_of(args: argparse.Namespace, space: Space, fit: Fit) -> dict[str, Any]:
    """A trial's draw, or the draw of the best trial by validation; the earlier of two equals."""
    wrapped = compare.VARIANTS[fit.variant] is not None
    own_scores = has_own_scores(fit.backbone)
    trial = fit.trial
    if trial is None:
        scores = [json.loads(path.read_text())["best_validation"] for path in trials_of(args, fit)]
        trial = max(range(len(scores)), key=scores.__getitem__, default=0)
    return draw(space, trial, wrapped=wrapped, own_scores=own_scores)


def fit_words(args: argparse.Namespace, space: Space, fit: Fit) -> list[str]:
    """What a fit adds to the words that all share."""
    epochs = args.epochs if fit.trial is None or args.trial_epochs is None else args.trial_epochs
    return [*words(settings_of(args, space, fit)), "--trainer.max_epochs", str(epochs)]


def check_all(args: argparse.Namespace, space: Space, fits: list[Fit]) -> None:
    """Refuse results that this command would not have made; what waits for trials can't be told yet."""
    for fit in fits:
        if place(args, fit).exists() and is_ready(args, fit):
            check_kept(place(args, fit), fit_words(args, space, fit))


def is_ready(args: argparse.Namespace, fit: Fit) -> bool:
    """Whether it is known what a fit is: a trial always is, a tested one after its trials."""
    return fit.trial is not None or all(trial.exists() for trial in trials_of(args, fit))


def check_kept(path: Path, expected: list[str]) -> None:
    """Refuse a result that was made with other settings than this command would use."""
    found = json.loads(path.read_text()).get("options")
    if found != expected:
        raise InputError(
            f"this result was made with other settings: {found}, not {expected}",
            path=path,
            hint="The space, the epochs or the best trial changed since; remove it, or give another --out",
        )


def run_fit(args: argparse.Namespace, space: Space, fit: Fit) -> bool:
    """Run a fit unless it waits for trials, is there, or another process is at it; whether it was run."""
    if not is_ready(args, fit):
        return False
    target = place(args, fit)
    try:
        with claim(target):
            if target.exists():
                return False
            chosen, test = fit_words(args, space, fit), fit.trial is None
            compare.one_run(args, fit.backbone, fit.variant, fit.seed, chosen, target=target, test=test)
            return True
    except Timeout:
        return False


def claim(target: Path) -> BaseFileLock:
    """The lock of a fit, which its holder's death opens."""
    folder = Path("runs", "locks")
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(target.resolve().with_suffix("").parts[-3:])
    return FileLock(folder / f"{name}.lock", timeout=0)


def has_own_scores(backbone: str) -> bool:
    """Whether the class named in the backbone's file scores otherwise than by a product."""
    name = yaml.safe_load((compare.HERE / "backbone" / f"{backbone}.yaml").read_text())["class_path"]
    kinds = {one.__name__: one for one in load_plugins(BACKBONES).values()}
    kind = kinds[name.rsplit(".", 1)[-1]]
    return bool(kind.score is not SessionBackbone.score)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="data module YAML")
    parser.add_argument("--data_dir")
    parser.add_argument("--backbones", nargs="+", default=["srgnn"])
    parser.add_argument("--variants", nargs="+", default=["bare", "titles"], choices=sorted(compare.VARIANTS))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--space", type=Path, help="search space; the one that OUT was begun with, else search.yaml"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of a fit, at most")
    parser.add_argument("--trial_epochs", type=int, help="of a trial, at most; --epochs if not given")
    parser.add_argument("--store", default="views/beauty", help="folder that `llm4sbr views infer` wrote")
    parser.add_argument("--out", type=Path, default=compare.HERE / "results" / "protocol")
    parser.add_argument("--options", default="", help="further words for every `llm4sbr fit`")
    parser.add_argument("--minutes", type=float, help="start no fit after that time")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    if TUNING_SEED in args.seeds or args.trials < 1:
        parser.error(f"at least one trial, and {TUNING_SEED} is the seed of the trials: test others")
    space = search_space(args)
    fits = list(plan(args))
    check_all(args, space, fits)
    ends = math.inf if args.minutes is None else time.monotonic() + 60 * args.minutes
    while left := [fit for fit in fits if not place(args, fit).exists()]:
        if time.monotonic() >= ends:
            print(f"time is up: {len(left)} of {len(fits)} fits are left; run the same command to go on")
            return 0
        if not any(run_fit(args, space, fit) for fit in left):
            time.sleep(POLL)  # the rest is with other processes
    check_all(args, space, fits)  # a new trial may have changed what is best
    print(f"all {len(fits)} fits are there: python experiments/table.py {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
