"""Fits for the tests of the experiments, made without training, and what a study's file holds."""

from pathlib import Path

from experiments.study.results import Study
from experiments.study.rows import key_of


def fit(seed, **more):
    """A fit with nothing measured but its validation."""
    return {"backbone": "SRGNN", "variant": "bare", "seed": seed, "best_validation": 0.1 * seed, **more}


def add_fits(folder, seeds):
    """Add fits to `study.parquet`, one by one; for a process of its own."""
    study = Study(Path(folder) / "study.parquet", runs=Path(folder) / "runs")
    for seed in seeds:
        study.add(fit(seed))


def kept(path: Path):
    """The fits of a study, by name: `srgnn-bare-0`, `srgnn-bare-trial-00`."""
    return {str(key_of(run)): run for run in Study(path).runs()}
