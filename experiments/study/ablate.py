"""Ablations: a tuned model with one change at a time, compared by validation."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from experiments.benchmarks.results import result, save
from experiments.study.fits import VARIANTS, Shared, check_variants, fit_once
from experiments.study.results import Study
from experiments.study.rows import Key, Run
from experiments.study.settings import Settings, compared
from llm4sbr.contracts.errors import InputError

METRICS = ("val/ndcg@20", "val/mrr@20", "val/recall@20")
TUNED = "tuned"
ABLATIONS = Path(__file__).resolve().parents[1] / "ablations.yaml"


def ablate(
    data: str,
    tuned: Path,
    out: Path,
    data_dir: str | None = None,
    backbone: str = "SRGNN",
    variant: str = "titles",
    seeds: list[int] | None = None,
    file: Path = ABLATIONS,
    r: dict[str, str] | None = None,
    only: list[str] | None = None,
    store: str = "views/beauty",
    settings: dict[str, Any] | None = None,
) -> None:
    """Change one setting of a tuned model at a time and compare by validation; the test split is not read.

    The model is the best trial of ``search`` for this backbone and variant, with its epochs. The table shows
    the validation metrics of the chosen epoch, and the mean difference to the tuned model over the shared
    seeds, ± its standard error. It is saved as JSON beside the results file. A stopped command resumes.

    Example::

        python -m experiments ablate --data experiments/data/beauty-core.yaml --variant llm --store views/core
            --tuned experiments/results/protocol-beauty-core.parquet --seeds '[0, 1]'
            --out experiments/results/ablations-beauty-core.parquet

    Args:
        data: Data module YAML.
        tuned: Results file of ``search``.
        out: Results file.
        data_dir: Folder of the data; by default that of the YAML.
        backbone: Registered name of the backbone.
        variant: Name of the variant; for a bare model also give ``--file
            experiments/ablations-training.yaml``.
        seeds: Seeds of the fits; 0, 1 and 2 by default.
        file: YAML of the variations: settings by name of the variation.
        r: Further variations: fingerprints of views by their r, such as ``'{3: 54ab4d}'``.
        only: Parts of names; only variations with one of these in their name run.
        store: Folder of the view store.
        settings: Settings of every fit (see compare), which override those of the tuned model.
    """
    check_variants([variant])
    study, seeds = Study(out), [0, 1, 2] if seeds is None else seeds
    shared = Shared(
        data, data_dir, store, {**best_trial(Study(tuned), backbone, variant), **(settings or {})}
    )
    named = variations(file, r or {}, only)
    tuned_runs = kept_tests(Study(tuned), backbone, variant, dict(shared.settings))
    for seed in seeds:
        for name, changed in named.items():
            if name != TUNED or seed not in tuned_runs:
                key = Key(backbone, variant, seed, what=name)
                fit_once(study, shared, key, {**shared.settings, **changed}, VARIANTS[variant], test=False)
    found = {name: {} if name != TUNED else tuned_runs for name in named}
    for run in study.runs() if study.exists() else ():
        if run["what"] in found and (run["backbone"], run["variant"]) == (backbone, variant):
            found[run["what"]][run["seed"]] = run
    rows = compare_all({name: {s: one[s] for s in seeds if s in one} for name, one in found.items()})
    show(rows)
    flat = [
        {"what": f"{row['what']}: {metric}", "value": row[metric], "unit": "%", "note": tell(row, metric)}
        for row in rows
        for metric in METRICS
    ]
    save(study.path.with_suffix(".json"), result(study.name, flat, details=rows))


def best_trial(study: Study, backbone: str, variant: str) -> Settings:
    """Return the settings of the best trial of a search by validation; the earliest trial wins a tie."""
    trials = [
        run
        for run in study.runs()
        if "trial" in run and (run["backbone"], run["variant"]) == (backbone, variant)
    ]
    if not trials:
        raise InputError(f"no trials of {backbone} {variant}", path=study.path, hint="Run the search first")
    best: Settings = max(trials, key=lambda run: (run["best_validation"], -run["trial"]))["settings"]
    return best


def kept_tests(study: Study, backbone: str, variant: str, settings: Settings) -> dict[int, Run]:
    """Return the search's own tested fits of the tuned model with the same settings, by seed."""
    return {
        run["seed"]: run
        for run in study.tested()
        if (run["backbone"], run["variant"]) == (backbone, variant)
        and compared(run["settings"]) == compared(settings)
    }


def variations(file: Path, r: dict[str, str], only: list[str] | None) -> dict[str, Settings]:
    """Return the settings that each variation changes; the tuned model comes first."""
    named: dict[str, Settings] = dict(yaml.safe_load(file.read_text()))
    named |= {f"r = {number}": {"views_spec": spec} for number, spec in r.items()}
    return {TUNED: {}} | {
        name: changed for name, changed in named.items() if only is None or any(part in name for part in only)
    }


def compare_all(found: dict[str, dict[int, Run]]) -> list[dict[str, Any]]:
    """Make a row for each variation with a result: means in %, and differences to the tuned model."""
    reached = {name: {seed: chosen_epoch(run) for seed, run in one.items()} for name, one in found.items()}
    table = []
    for name, by_seed in reached.items():
        if not by_seed:
            continue
        row: dict[str, Any] = {"what": name, "seeds": sorted(by_seed)}
        for metric in METRICS:
            row[metric] = round(mean(one[metric] for one in by_seed.values()), 3)
            shared = [by_seed[s][metric] - reached[TUNED][s][metric] for s in by_seed if s in reached[TUNED]]
            if name != TUNED and shared:
                row[f"{metric} difference"] = round(mean(shared), 3)
                error = stdev(shared) / len(shared) ** 0.5 if len(shared) > 1 else None
                row[f"{metric} standard error"] = None if error is None else round(error, 3)
        table.append(row)
    return table


def chosen_epoch(run: Run) -> dict[str, float]:
    """Return the validation metrics, in %, of the epoch that validation chose."""
    epoch = run["history"][run["best_epoch"]]
    return {metric: 100 * epoch[metric] for metric in METRICS}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    names = [name.removeprefix("val/") for name in METRICS]
    print("| variation | seeds | " + " | ".join(f"{name} | difference" for name in names) + " |")
    print("|---|---|" + "---|---|" * len(METRICS))
    for row in rows:
        cells = [cell for metric in METRICS for cell in (f"{row[metric]:.2f}", tell(row, metric))]
        print("| " + " | ".join([row["what"], str(len(row["seeds"])), *cells]) + " |")


def tell(row: dict[str, Any], metric: str) -> str:
    """Format a difference with its standard error."""
    if f"{metric} difference" not in row:
        return "–"
    error = row[f"{metric} standard error"]
    return f"{row[f'{metric} difference']:+.2f}" + ("" if error is None else f" ± {error:.2f}")
