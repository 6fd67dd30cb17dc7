"""Search: equal tuning of bare and wrapped models by validation, and one test over seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.study import space as spaces
from experiments.study.fits import VARIANTS, Shared, check_variants, fit, fit_once
from experiments.study.results import Study
from experiments.study.rows import Key, Run, key_of
from experiments.study.settings import Settings, compared
from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.registry import BACKBONES, load_plugins

if TYPE_CHECKING:
    from experiments.study.ledger import Ledger

HERE = Path(__file__).resolve().parents[1]
POLL = 2  # seconds between checks of what other processes have finished


def search(
    data: str,
    out: Path,
    data_dir: str | None = None,
    backbones: list[str] | None = None,
    variants: list[str] | None = None,
    trials: int = 8,
    seeds: list[int] | None = None,
    epochs: int = 10,
    space: Path | None = None,
    minutes: float | None = None,
    store: str = "views/beauty",
    settings: dict[str, Any] | None = None,
) -> None:
    """Tune bare and wrapped models equally, choose by validation, and test once over seeds.

    Each backbone and variant has trials with a separate seed, which do not read the test split. Then the best
    settings by validation NDCG@20 run once for each seed and are tested. Bare and wrapped models get the same
    number of trials, with the same draws of the common settings. A single trial needs no choice: the first
    settings of the space are tested at once.

    The results file keeps every fit and the search space. So a stopped command resumes, a fit whose process
    was stopped resumes from its last checkpoint, and the same command in several processes shares the fits.
    A backbone is brought to its end before the next begins: what is there at any time makes a table of whole
    rows.

    Example::

        python -m experiments search --data experiments/data/beauty.yaml --store views/beauty
            --backbones '[SRGNN, GRU4Rec]' --trials 4 --epochs 8 --settings '{bucket: 50, batch_size: 200}'
            --minutes 120 --out experiments/results/protocol-beauty.parquet

    Args:
        data: Data module YAML.
        out: Results file.
        data_dir: Folder of the data; by default that of the YAML.
        backbones: Registered names of the backbones; SR-GNN by default.
        variants: Variants among bare, titles, llm, llm+titles and no-views; the first two by default.
        trials: Number of trials of each backbone and variant.
        seeds: Seeds of the tested fits; 0, 1 and 2 by default.
        epochs: Largest number of epochs of a fit.
        space: YAML of the search space; by default that of the results file, else experiments/search.yaml.
        minutes: Time after which no fit starts.
        store: Folder of the view store.
        settings: Settings of every fit (see compare).
    """
    study = Study(out)
    text = space.read_text() if space else study.space() or (HERE / "search.yaml").read_text()
    shared = Shared(data, data_dir, store, {**(settings or {}), "epochs": epochs})
    variants, seeds = variants or ["bare", "titles"], [0, 1, 2] if seeds is None else seeds
    check_variants(variants)
    work = Search(study, shared, spaces.read(text), backbones or ["SRGNN"], variants, trials, seeds)
    work.check()
    study.begin(text)
    ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
    fits = list(work.plan())
    while left := set(fits) - study.kept():
        if time.monotonic() >= ends:
            print(f"time is up: {len(left)} of {len(fits)} fits are left; run the same command to continue")
            return
        if not any(work.run(key) for key in fits if key in left):
            time.sleep(POLL)  # other processes run the remaining fits
    work.check()  # a new trial may have changed what is best
    print(f"all {len(fits)} fits are done: python -m experiments table --studies {study.path}")


class Search:
    """The fits of a search.

    Args:
        study: Study that saves the fits.
        shared: Options of all fits.
        space: Search space.
        backbones: Registered names of the backbones.
        variants: Names of `VARIANTS`.
        trials: Number of trials of each pair; a single trial needs no choice and does not run.
        seeds: Seeds of the tested fits.
    """

    def __init__(
        self,
        study: Study,
        shared: Shared,
        space: spaces.Space,
        backbones: list[str],
        variants: list[str],
        trials: int,
        seeds: list[int],
    ) -> None:
        from experiments.study.ledger import TUNING_SEED, Ledger

        if TUNING_SEED in seeds or trials < 1:
            raise InputError(f"at least one trial, and {TUNING_SEED} is the trials' own seed: test others")
        self.study, self.shared, self.space = study, shared, space
        self.backbones, self.variants, self.seeds = backbones, variants, seeds
        self.trials, self._seed = trials if trials > 1 else 0, TUNING_SEED
        self._kind: type[Ledger] = Ledger
        self._ledgers: dict[tuple[str, str], Ledger] = {}

    def plan(self) -> Iterator[Key]:
        """Yield all fits, one backbone after another: the trials of its variants, then the seeds."""
        for backbone in self.backbones:
            for trial in range(self.trials):
                yield from (Key(backbone, variant, self._seed, trial) for variant in self.variants)
            for seed in self.seeds:
                yield from (Key(backbone, variant, seed) for variant in self.variants)

    def run(self, key: Key) -> bool:
        """Run a trial of the key's backbone and variant, or a test; return False if it must wait."""
        views = VARIANTS[key.variant]
        if key.trial is None:
            trial = self.chosen(key)
            return trial is not None and fit_once(
                self.study, self.shared, key, self.settings(key, trial), views, test=True
            )
        ledger = self.ledger(key)
        taken = ledger.take()
        if taken is None:
            return False
        try:
            found = self._fitting(key.backbone, taken.settings)
            kept = fit(self.study, self.shared, taken.key, found, views, test=False)
            ledger.tell(taken, kept["best_validation"])
        finally:
            taken.lock.release()
        return True

    def check(self) -> None:
        """Refuse saved results with other settings; fits that wait for trials are not checked.

        Raises:
            InputError: A saved fit has other settings.
        """
        kept = {key_of(run): run for run in self.study.runs()} if self.study.exists() else {}
        for key in self.plan():
            if key not in kept:
                continue
            trial = key.trial if key.trial is not None else self._best_kept(kept, key)
            if trial is None:
                continue
            found, expected = compared(kept[key]["settings"]), compared(self.settings(key, trial))
            if found != expected:
                raise InputError(
                    f"{key} has other settings: {found}, not {expected}",
                    path=self.study.path,
                    hint="The space, the epochs or the best trial changed since; give another --out",
                )

    def settings(self, key: Key, trial: int) -> Settings:
        """Return the settings of a fit with the draw of a trial."""
        wrapped = VARIANTS[key.variant] is not None
        return self._fitting(key.backbone, spaces.draw(self.space, trial, wrapped=wrapped))

    def chosen(self, key: Key) -> int | None:
        """Return the trial whose settings are tested; None while trials are missing."""
        return self.ledger(key).best() if self.trials else 0

    def ledger(self, key: Key) -> Ledger:
        """Return the trials of a fit's backbone and variant."""
        pair = (key.backbone, key.variant)
        if pair not in self._ledgers:
            wrapped = VARIANTS[key.variant] is not None
            self._ledgers[pair] = self._kind(
                self.study, self.space, *pair, wrapped=wrapped, trials=self.trials
            )
        return self._ledgers[pair]

    def _best_kept(self, kept: dict[Key, Run], key: Key) -> int | None:
        trials = [key._replace(seed=self._seed, trial=trial) for trial in range(self.trials)]
        if not all(trial in kept for trial in trials):
            return None
        return max(range(self.trials), key=lambda n: (kept[trials[n]]["best_validation"], -n), default=0)

    def _fitting(self, backbone: str, settings: Settings) -> Settings:
        """Add a draw to the settings of all fits; a backbone with its own scores takes no `score_scale`."""
        found = {**self.shared.settings, **settings, "epochs": self.shared.settings["epochs"]}
        kind = load_plugins(BACKBONES)[backbone]
        own = issubclass(kind, SessionBackbone) and kind.has_own_scores()
        return {name: value for name, value in found.items() if name != "score_scale" or not own}
