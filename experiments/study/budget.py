"""Metrics against the share of sessions with LLM views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from experiments.benchmarks.results import keep, row
from experiments.study.fits import Shared, fit_once
from experiments.study.lifts import METRICS, lift
from experiments.study.results import Study
from experiments.study.rows import Key, Run
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.runs.budget import bare_model, how_many, in_proportion, order_of_need
from llm4sbr.runs.saved_run import load_run
from llm4sbr.views.inference.sessions import session_keys
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys, write_keys

SPLITS: tuple[Split, ...] = ("train", "validate", "test")
BASELINE = "entropy-0"  # baseline of the lifts: title views for all sessions


def budget(
    run: Path,
    out: Path,
    store: str = "views/beauty",
    spec: str = "llm",
    shares: list[float] | None = None,
    choose: list[str] | None = None,
    backbone: str = "SRGNN",
    seeds: list[int] | None = None,
    settings: dict[str, Any] | None = None,
    json: Path | None = None,
) -> None:
    """Measure the metrics against the share of sessions with LLM views.

    The sessions are those for which a bare model is most uncertain. For each share, the wrapped model uses
    their LLM views, and title views for the other sessions; data and splits are those of the bare run. Lifts
    are paired and relative to share 0, title views for all. Saved fits are not repeated.

    Example::

        python -m experiments budget --run runs/core-bare/version_0 --store views/core
            --shares '[0, 0.1, 0.3, 1]' --choose '[entropy, random]' --settings '{epochs: 12}'
            --out experiments/results/budget.parquet --json experiments/results/budget.json

    Args:
        run: Folder of the bare run, or its checkpoint.
        out: Results file.
        store: Folder of a view store with LLM views of the sessions.
        spec: Views of the store: ``llm``, or a fingerprint.
        shares: Shares of the sessions; 0, 0.1, 0.3 and 1 by default.
        choose: Orders of the sessions: ``entropy``, and ``random`` for the same number of random sessions;
            the first by default.
        backbone: Registered name of the backbone.
        seeds: Seeds of the fits; 0, 1 and 2 by default.
        settings: Settings of every fit (see compare).
        json: File for the rows.
    """
    study, seeds, choose = Study(out), [0, 1, 2] if seeds is None else seeds, choose or ["entropy"]
    if unknown := sorted(set(choose) - {"entropy", "random"}):
        raise InputError("sessions are chosen by entropy or random", value=unknown)
    saved = load_run(run)
    work = study.work / "sessions"
    work.mkdir(parents=True, exist_ok=True)
    data = work / "data.yaml"
    data.write_text(yaml.safe_dump(saved.config["data"]))
    shared = Shared(str(data), store=store, settings=settings or {})
    rows: list[dict[str, Any]] = []
    for choice in choose:
        sessions = order(choice, run, saved.data)
        for share in sorted([0, 0.1, 0.3, 1] if shares is None else shares):
            if choice == "random" and share in (0, 1) and "entropy" in choose:
                continue  # no sessions and all sessions are the same in both orders
            keys = sessions[: how_many(float(share), len(sessions))]
            variant = f"{choice}-{100 * share:g}"
            file = work / f"{variant}.keys"
            if file.exists() and read_keys(file) != keys:
                hint = "Give another --out, or remove it"
                raise InputError(
                    "these sessions come from another bare run or other data", path=file, hint=hint
                )
            write_keys(file, keys)
            views = {"views_spec": spec, "views_fallback": "titles", "views_only": str(file)}
            for seed in seeds:
                fit_once(study, shared, Key(backbone, variant, seed), dict(shared.settings), views)
            with ViewStore(store) as opened:
                coverage = load_view_table(opened, saved.data, spec, only=keys).coverage
            covered = ", ".join(f"{coverage[split]:.1%} of {split}" for split in SPLITS if split in coverage)
            note = (
                f"{len(keys)} of {len(sessions)} distinct sessions chosen, views of {covered}; seeds {seeds}"
            )
            rows += tell(study, backbone, variant, seeds, note)
    keep("budget", rows, json, device="see each fit")


def order(choice: str, run: Path, source: ExampleSource) -> list[bytes]:
    """Return all sessions in the order in which a budget takes them."""
    if choice == "random":  # content keys are hashes, so sorting them is a random order
        return in_proportion([sorted(dict(session_keys(source, split))) for split in SPLITS])
    return order_of_need(source, bare_model(run, source), SPLITS, progress=True)


def tell(study: Study, backbone: str, variant: str, seeds: list[int], note: str) -> list[dict[str, Any]]:
    """Make the rows of a variant."""
    runs: dict[str, dict[int, Run]] = {variant: {}, BASELINE: {}}
    for one in study.tested():
        if one["backbone"] == backbone and one["seed"] in seeds and one["variant"] in runs:
            runs[one["variant"]][one["seed"]] = one
    rows = []
    for metric in METRICS:
        values = [run["test"][f"test/{metric}"] for run in runs[variant].values()]
        rows.append(row(f"{variant} %: {metric}", 100 * sum(values) / len(values), "%", note=note))
        found = None if variant == BASELINE else lift(runs[BASELINE], runs[variant], metric)
        if found is not None:
            text = f"95 % interval {found['interval']}; {note}"
            what = f"{variant} %: lift of {metric} over titles"
            rows.append(row(what, found["relative"], "relative", note=text))
    return rows
