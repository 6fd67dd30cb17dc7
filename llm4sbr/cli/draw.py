"""``llm4sbr draw``: figures of one or several finished runs."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Trainer

from llm4sbr.callbacks import ViewCache
from llm4sbr.callbacks.pictures import FOLDER, view_names
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, check_arguments
from llm4sbr.report.evaluation_hooks import evaluation_hooks
from llm4sbr.report.figures.figures import Format, run_figures, run_numbers, save
from llm4sbr.report.figures.pictures import length_figure, option_figure
from llm4sbr.report.figures.snapshot import Snapshot, SnapshotRecorder, Spaces, evenly, snapshot_spaces
from llm4sbr.runs.saved_run import SavedRun, load_run, read_config, untrained
from llm4sbr.runs.trainer_cli import say
from llm4sbr.training.wrapper import LLM4SBRWrapper
from llm4sbr.views.quiet import quiet_lightning

_SWEPT = {
    "r": ("views", "r"),
    "tau": ("model", "init_args", "alignment", "init_args", "tau"),
}  # options on the horizontal axis of a figure
_FEW = 5  # an option with at most this many values gets one line per value
_IDLE = ("seed_everything", "trainer", "ckpt_path", "resume", "weights_only", "verbose", "output")


def draw(
    runs: list[str],
    out: str | None = None,
    split: Literal["validate", "test"] = "validate",
    metric: str = "val/recall@20",
    sample: PositiveInt = 300,
    format: Format = "png",
) -> list[Path]:
    """Draw the figures of finished runs of ``fit`` from their folders.

    One run: Recall and MRR against session length, the distributions of long- and short-term gates, interests
    and views before and after training. Several runs that differ in r or τ, such as those of a sweep: a
    metric against r and τ. Several other runs: their Recall and MRR against session length, side by side.

    Args:
        runs: Folders of runs.
        out: Folder of the figures; by default ``pictures`` in the run's folder, or in the working folder for
            several runs.
        split: Split to evaluate. Choose nothing by the results on ``test``.
        metric: Metric of the chosen epoch, drawn against r and τ.
        sample: Number of sessions whose spaces are shown.
        format: Format of the files.

    Returns:
        Paths of the figures.

    Raises:
        InputError: A folder is not that of a finished run, or its data or views are missing.
    """
    check_arguments(draw, {"sample": sample})
    if not runs:
        raise InputError("name the folder of at least one run", hint="llm4sbr draw runs/llm4sbr/version_0")
    folders = [Path(run) for run in runs]
    place = Path(out) if out else (folders[0] / FOLDER if len(runs) == 1 else Path(FOLDER))
    if len(runs) == 1:
        found = snapshot_run(folders[0], split, sample)
        figures = run_figures(found.snapshot, found.before, found.views, found.name)
        numbers: dict[str, Any] = run_numbers(found.snapshot, found.before, found.views)
    else:
        figures, numbers = {}, {}
        for option in _SWEPT:
            lines = against(folders, option, metric)
            if lines:
                figures[f"{metric.split('/')[-1]}-against-{option}"] = option_figure(option, lines, metric)
                numbers[option] = {name: {str(k): v for k, v in line.items()} for name, line in lines.items()}
        if not figures:  # not for a sweep, whose many runs would take long to evaluate again
            taken = [snapshot_run(folder, split, 0) for folder in folders]
            snapshots = {one.name: one.snapshot for one in taken}
            if len({len(snapshot.rank) for snapshot in snapshots.values()}) > 1:
                raise InputError("the runs were evaluated on different sessions", value=runs)
            figures["length"] = length_figure(snapshots)
            numbers = {one.name: run_numbers(one.snapshot, None, one.views) for one in taken}
    paths = save(place, figures, {"runs": runs, "split": split, **numbers}, format)
    for path in paths:
        say(str(path))
    return paths


class RunSnapshot(NamedTuple):
    """Snapshot of a run, for its figures."""

    name: str
    snapshot: Snapshot
    before: Spaces | None
    views: tuple[str, ...]


def snapshot_run(folder: Path, split: Literal["validate", "test"], sample: int) -> RunSnapshot:
    """Evaluate the chosen epoch of a run, and its model before training."""
    run = load_run(folder)
    cache = ViewCache(**{k: v for k, v in (run.config.get("views") or {}).items() if v is not None})
    examples = run.data.examples(split)  # type: ignore[attr-defined]
    rows = evenly(sample, len(examples)) if sample else []
    recorder = SnapshotRecorder([examples.first_index + row for row in rows])
    views = _evaluate(run, cache, split, recorder)
    found, before = recorder.result(), None
    seed = run.config.get("seed_everything")
    if found.spaces is not None and isinstance(seed, int) and not isinstance(seed, bool):
        first = untrained(run, seed).model
        assert isinstance(run.model, LLM4SBRWrapper)
        assert isinstance(first, LLM4SBRWrapper)
        first.view_table = run.model.view_table
        before = snapshot_spaces(first, examples, rows)
    name = type(run.model.backbone).__name__
    name += f" with {cache.spec_used.source} views" if cache.spec_used else ", bare" if not views else ""
    return RunSnapshot(f"{name} ({folder.name})", found, before, views)


def _evaluate(run: SavedRun, cache: ViewCache, split: str, recorder: SnapshotRecorder) -> tuple[str, ...]:
    with quiet_lightning():
        trainer = Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            devices=1,
            callbacks=[cache],
        )
        with evaluation_hooks(run.model, recorder.add):
            (trainer.validate if split == "validate" else trainer.test)(run.model, run.data, verbose=False)
    return view_names(trainer, run.model)


def against(folders: list[Path], option: str, metric: str) -> dict[str, dict[float, list[float]]]:
    """Group the runs that differ only in an option: option values and the metric of every run, by group.

    The seed does not separate groups. Of r and τ, the one that is not `option` separates them only if it
    takes few values, so not in a random sweep. Runs that did not end are left out. The result is empty if all
    runs have the same value.
    """
    runs = []
    for folder in folders:
        config = read_config(folder / "config.yaml")
        try:
            found = float(json.loads((folder / "summary.json").read_text("utf-8"))[metric])
        except (OSError, ValueError, KeyError):
            continue
        rest = copy.deepcopy({key: value for key, value in config.items() if key not in _IDLE})
        swept = {name: _take(rest, way) for name, way in _SWEPT.items()}
        runs.append((rest, swept, found))
    if not runs:
        raise InputError(
            f"no run has {metric} of its chosen epoch",
            value=[str(folder) for folder in folders],
            hint="The callback RunSummary of experiments/base.yaml writes it at the end of a run",
        )
    (other,) = set(_SWEPT) - {option}
    few = len({swept[other] for _, swept, _ in runs}) <= _FEW
    groups: dict[str, dict[str, Any]] = {}
    lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rest, swept, found in runs:
        if swept[option] is None:  # a bare model has no τ, and without --views.r all stored titles are used
            continue
        group = {**rest, other: swept[other]} if few else rest
        key = json.dumps(group, sort_keys=True)
        groups[key] = group
        lines[key][float(swept[option])].append(found)
    if len({value for line in lines.values() for value in line}) < 2:
        return {}
    names = _names(groups)
    return {names[key]: dict(line) for key, line in lines.items()}


def _take(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    *way, last = path
    for step in way:
        config = config.get(step) or {}
    return config.pop(last, None)


def _names(groups: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Name each group by the options that differ between the groups."""
    flat = {key: dict(_leaves(group)) for key, group in groups.items()}
    every = {name for leaves in flat.values() for name in leaves}
    differ = sorted(n for n in every if len({str(leaves.get(n)) for leaves in flat.values()}) > 1)
    return {
        key: ", ".join(f"{name.split('.')[-1]} {_short(leaves.get(name))}" for name in differ) or "all runs"
        for key, leaves in flat.items()
    }


def _leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict):
        for key, value in config.items():
            below = path if key in ("class_path", "init_args") else f"{path}.{key}"
            yield from _leaves(value, below)
    else:
        yield path, config


def _short(value: Any) -> str:
    return str(value).rsplit(".", 1)[-1] if isinstance(value, str) and "/" not in value else str(value)
