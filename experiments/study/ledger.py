"""Trials of one backbone and variant in an Optuna study, whose journal several processes share.

Draws are planned by trial number and enqueued, so bare and wrapped models get the same draws. The results
file is authoritative: a journal that disagrees with it (another checkout, a removed file) is rebuilt from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import optuna
from filelock import BaseFileLock, Timeout
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from experiments.study.results import Study
from experiments.study.rows import Key
from experiments.study.settings import Settings
from experiments.study.space import Space, choices, draw

TUNING_SEED = 1000  # seed of all trials; never a tested seed
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Taken(NamedTuple):
    """A trial to run; its holder releases the lock, and so does the end of the process."""

    trial: optuna.Trial
    key: Key
    settings: Settings
    lock: BaseFileLock


class Ledger:
    """Trials of one backbone and variant.

    Args:
        study: Study with the results.
        space: Search space; each space has its own journal.
        backbone: Registered name of the backbone.
        variant: Name of the variant.
        wrapped: Whether the settings of the wrapper are searched, too.
        trials: Number of trials.
    """

    def __init__(
        self, study: Study, space: Space, backbone: str, variant: str, *, wrapped: bool, trials: int
    ) -> None:
        self._results, self._space, self._wrapped = study, space, wrapped
        self._backbone, self._variant, self._trials = backbone, variant, trials
        found = choices(space, wrapped=wrapped)
        self._values = {name: CategoricalDistribution(values) for name, values in found.items()}
        mark = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:8]
        study.work.mkdir(parents=True, exist_ok=True)
        self._journal = study.work / f"search-{backbone}-{variant}-{mark}.journal"
        with self._plan():
            if not self._agrees():
                self._journal.unlink()
            self._complete()

    def key(self, trial: int) -> Key:
        """Return the key of a trial."""
        return Key(self._backbone, self._variant, TUNING_SEED, trial)

    def take(self) -> Taken | None:
        """Take the next trial: one whose process died, else the first waiting one; None if none is left."""
        with self._plan():
            self._complete()
            study = self._study()
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.number < self._trials and (lock := self._claimed(trial.number)):
                    return self._taken(optuna.Trial(study, trial._trial_id), lock)
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting or waiting[0].number >= self._trials:
                return None
            trial = study.ask()
            free = self._claimed(trial.number)
            return None if free is None else self._taken(trial, free)

    def tell(self, taken: Taken, value: float) -> None:
        """Report the validation result of a trial, which is saved already."""
        with self._plan():
            if self._study().trials[taken.trial.number].state == TrialState.RUNNING:
                self._study().tell(taken.trial.number, value)

    def best(self) -> int | None:
        """Return the best trial by validation, the earliest of equal ones; None while trials are missing."""
        with self._plan():
            self._complete()
            trials = self._study().trials[: self._trials]
        if any(trial.state != TrialState.COMPLETE for trial in trials):
            return None
        return max(trials, key=lambda trial: (trial.value, -trial.number)).number

    def _plan(self) -> BaseFileLock:
        return self._results.lock(f"plan-{self._backbone}-{self._variant}")

    def _study(self) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(self._journal)))
        name = f"{self._backbone} {self._variant}"
        return optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )

    def _kept(self) -> dict[int, float]:
        """Return the validation results of the saved trials, by number."""
        scores = self._results.scores()
        return {n: scores[self.key(n)] for n in range(self._trials) if self.key(n) in scores}

    def _agrees(self) -> bool:
        """Return whether every completed trial of the journal is saved with the same value."""
        if not self._journal.exists():
            return True
        kept = self._kept()
        ended = self._study().get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return all(kept.get(one.number) == one.value for one in ended if one.number < self._trials)

    def _complete(self) -> None:
        """Add the saved trials to the journal, and enqueue the missing ones."""
        study, kept = self._study(), self._kept()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
            if trial.number in kept:  # killed between saving and reporting, or saved elsewhere
                if trial.state == TrialState.WAITING:
                    study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
                study.tell(trial.number, kept[trial.number])
        for number in range(len(study.get_trials(deepcopy=False)), self._trials):
            settings = draw(self._space, number, wrapped=self._wrapped)
            if number in kept:
                done = optuna.trial.create_trial(
                    params=settings, distributions=dict(self._values), value=kept[number]
                )
                study.add_trial(done)
            else:
                study.enqueue_trial(settings)

    def _claimed(self, trial: int) -> BaseFileLock | None:
        lock = self._results.claim(self.key(trial))
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _taken(self, trial: optuna.Trial, lock: BaseFileLock) -> Taken:
        settings = {name: trial.suggest_categorical(name, one.choices) for name, one in self._values.items()}
        return Taken(trial, self.key(trial.number), settings, lock)
